"""Read profiles from the results of benchmarks and load tests, and from metrics of a service."""

import re
from collections import defaultdict
from collections.abc import Mapping
from statistics import median
from typing import Any

from serve_app.domain.units import Seconds
from serve_app.planning.profiles import (
    PAIR_TOKENS,
    WRITES_PER_REQUEST,
    Basis,
    Database,
    Gateway,
    ProfileError,
    Scorer,
    Traffic,
)

ENGINE = "this engine"
"""Name of this service's engine in the results of benchmarks.engine.throughput."""


def scorer(found: Mapping[str, Any], file: str) -> Scorer:
    """Read the result of ``benchmarks.engine.throughput`` or ``benchmarks.gpu``.

    Raises: ProfileError: It is neither.
    """
    try:
        if "by_length" in found:
            return Scorer(found["description"], Basis.MEASURED, file, _by_length(found))
        if found["device"] != "cuda":
            raise ProfileError(f"{file} was measured without a GPU, so its figures mean nothing.")
        name = found["environment"]["gpu"]
        return Scorer(name, Basis.MEASURED, file, _of_gpu(found["speed"]["documents_per_s"]))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        if isinstance(error, ProfileError):
            raise
        raise ProfileError(
            f"{file} is not a result of benchmarks.engine.throughput or benchmarks.gpu."
        ) from None


def _by_length(found: Mapping[str, Any]) -> tuple[tuple[float, float], ...]:
    rows = [found["typical"], *found["by_length"]]
    speeds = {
        float(row["tokens_mean"]): median(
            next(each for each in row["speeds"] if each["name"] == ENGINE)["tokens_per_s"]
        )
        for row in rows
    }
    return tuple(sorted(speeds.items()))


def _of_gpu(by_name: Mapping[str, Any]) -> tuple[tuple[float, float], ...]:
    """Return the best speeds with two batches in flight, as the service runs them."""
    speeds = {}
    for name, rows in by_name.items():
        tokens = float(name.split()[0]) if name.endswith(" tokens") else PAIR_TOKENS
        speeds[tokens] = tokens * max(row["two_in_flight"] for row in rows)
    return tuple(sorted(speeds.items()))


def gateway(found: Mapping[str, Any], file: str) -> Gateway:
    """Read the result of ``benchmarks.service.gpu_overhead``.

    The CPU times of a request and of a document are fitted by least squares to the loads with
    several clients. Raises: ProfileError.
    """
    try:
        points = [
            (
                float(each["documents_per_request"]),
                each["gateway_ms"] * each["documents_per_request"] / 1_000,
            )
            for each in found["took"]
            if each["clients"] > 1
        ]
        request_s, document_s = _line(points)
    except (KeyError, TypeError, ZeroDivisionError):
        raise ProfileError(f"{file} is not a result of benchmarks.service.gpu_overhead.") from None
    return Gateway(Seconds(max(0.0, request_s)), Seconds(max(0.0, document_s)), source=file)


def _line(points: list[tuple[float, float]]) -> tuple[float, float]:
    """Return intercept and slope of the line with the least relative squared errors."""
    weights = [value**-2 for _, value in points]
    total = sum(weights)
    mean_x = sum(w * x for w, (x, _) in zip(weights, points, strict=True)) / total
    mean_y = sum(w * y for w, (_, y) in zip(weights, points, strict=True)) / total
    spread = sum(w * (x - mean_x) ** 2 for w, (x, _) in zip(weights, points, strict=True))
    together = sum(
        w * (x - mean_x) * (y - mean_y) for w, (x, y) in zip(weights, points, strict=True)
    )
    slope = together / spread
    return mean_y - slope * mean_x, slope


def database(found: Mapping[str, Any], file: str) -> Database:
    """Read the figures of PostgreSQL from the result of ``benchmarks.ledger.throughput``.

    Raises: ProfileError.
    """
    try:
        rates = {
            each["concurrency"]: float(each["requests_per_s"])
            for each in found["speeds"]
            if (each["database"], each["way"]) == ("postgresql", "group commit")
        }
        callers = max(rates)
        transaction_s, write_s = write_times(rates[1], rates[callers], callers)
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        raise ProfileError(f"{file} is not a result of benchmarks.ledger.throughput.") from None
    return Database("PostgreSQL", transaction_s, write_s, file)


def write_times(alone_per_s: float, together_per_s: float, callers: int) -> tuple[Seconds, Seconds]:
    """Return the time of a transaction, and that of a write, from requests per second.

    A request writes twice, each time in a transaction with the writes of all waiting callers.

    Args:
        alone_per_s: Requests of one caller.
        together_per_s: Requests of ``callers`` callers.
    """
    one_s, all_s = 1 / alone_per_s, callers / together_per_s
    write_s = max(0.0, (all_s - one_s) / (WRITES_PER_REQUEST * (callers - 1)))
    return Seconds(max(0.0, one_s / WRITES_PER_REQUEST - write_s)), Seconds(write_s)


def load_run(found: Mapping[str, Any], file: str) -> Traffic:
    """Read the summary of a load test (``loadtests/``). Raises: ProfileError."""
    try:
        total = found["total"]
        sizes: dict[int, float] = defaultdict(float)
        for each in found["classes"]:
            if each["requests"]:
                sizes[round(each["documents"]["mean"])] += each["requests"]
        return Traffic(
            total["requests_per_s"],
            sizes,
            total["pair_tokens_mean"] or PAIR_TOKENS,
            burstiness=total["gaps_cv"] or 1.0,
        )
    except (KeyError, TypeError):
        raise ProfileError(f"{file} is not a summary of a load test.") from None


_SAMPLE = re.compile(r"^(?P<name>[a-zA-Z_:]\w*)(?:\{(?P<labels>[^}]*)\})? (?P<value>\S+)", re.M)


def totals(metrics: str) -> dict[str, float]:
    """Return the sum of each metric over all its labels, from Prometheus' text format.

    Of ``ray_rerank_requests_total``, only answered requests count.
    """
    found: dict[str, float] = defaultdict(float)
    for sample in _SAMPLE.finditer(metrics):
        labels = sample["labels"] or ""
        if sample["name"] == "ray_rerank_requests_total" and 'code="ok"' not in labels:
            continue
        found[sample["name"]] += float(sample["value"])
    return found


def traffic_of_metrics(before: str, after: str, seconds: float) -> Traffic:
    """Return the answered traffic between two readings of a service's metrics.

    The readings are those of all nodes with gateways. Sizes are known as a mean only, and
    burstiness is not known. Raises: ProfileError: No request was answered.
    """
    requests, documents, tokens = (
        totals(after)[name] - totals(before)[name]
        for name in (
            "ray_rerank_requests_total",
            "ray_rerank_documents_total",
            "ray_rerank_tokens_total",
        )
    )
    if requests <= 0 or documents <= 0:
        raise ProfileError("The service answered no request between the two readings.")
    size = max(1, round(documents / requests))
    return Traffic(requests / seconds, {size: 1.0}, tokens / documents)


def scorer_of_metrics(metrics: str, source: str) -> Scorer:
    """Return the speed of the scorers since they started. Raises: ProfileError."""
    found = totals(metrics)
    seconds = found["ray_rerank_batch_seconds_sum"]
    if seconds <= 0:
        raise ProfileError("The scorers have computed no batch yet.")
    documents, tokens = found["ray_rerank_documents_total"], found["ray_rerank_tokens_total"]
    pair_tokens = tokens / documents if documents else PAIR_TOKENS
    speed = found["ray_rerank_scored_tokens_total"] / seconds
    # The time of a batch includes what it takes in addition to its tokens.
    return Scorer(
        "scorer of the service",
        Basis.MEASURED,
        source,
        ((pair_tokens, speed),),
        batch_s=Seconds(0.0),
    )
