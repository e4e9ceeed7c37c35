"""Read profiles from results of benchmarks and load tests, and from metrics of a service."""

from collections import defaultdict
from collections.abc import Mapping
from statistics import median
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

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

REQUESTS, DOCUMENTS, TOKENS, SCORED_TOKENS = (
    f"ray_rerank_{name}_total" for name in ("requests", "documents", "tokens", "scored_tokens")
)
BATCH_SECONDS = "ray_rerank_batch_seconds_sum"

ENGINE = "this engine"


def scorer(found: Mapping[str, Any], file: str) -> Scorer:
    """Read a result of ``benchmarks.engine.throughput`` or ``benchmarks.gpu``.

    Raises: ProfileError, also if the speed was measured without a GPU.
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
    """Return the best speeds with two batches in flight, as in the service."""
    speeds = {}
    for name, rows in by_name.items():
        tokens = float(name.split()[0]) if name.endswith(" tokens") else PAIR_TOKENS
        speeds[tokens] = tokens * max(row["two_in_flight"] for row in rows)
    return tuple(sorted(speeds.items()))


def gateway(found: Mapping[str, Any], file: str) -> Gateway:
    """Read a result of ``benchmarks.service.gpu_overhead``. Raises: ProfileError.

    The CPU times are fitted by least squares to the loads with several clients.
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
    """Read PostgreSQL's figures from ``benchmarks.ledger.throughput``. Raises: ProfileError."""
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
    """Return the times of a transaction and of a write, from requests per second.

    Each of a request's writes is in a transaction with those of all waiting ``callers``.
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


def growth(before: str, after: str) -> dict[str, float]:
    """Return the growth of each metric, summed over its labels, between two readings.

    Readings are in Prometheus' text format. Only answered requests count. Raises: ProfileError.
    """
    found = _totals(after)
    for name, value in _totals(before).items():
        found[name] -= value
    return found


def _totals(metrics: str) -> dict[str, float]:
    found: dict[str, float] = defaultdict(float)
    try:
        for family in text_string_to_metric_families(metrics):
            for sample in family.samples:
                if sample.name != REQUESTS or sample.labels.get("code") == "ok":
                    found[sample.name] += sample.value
    except ValueError as error:
        raise ProfileError(f"The metrics cannot be read: {error}") from None
    return found


def traffic_of_metrics(grown: Mapping[str, float], seconds: float) -> Traffic:
    """Return the answered traffic of all models from the `growth` on all nodes in ``seconds``.

    Sizes are known as a mean only, and burstiness is not known.

    Raises: ProfileError if no request was answered.
    """
    requests, documents, tokens = (grown.get(name, 0.0) for name in (REQUESTS, DOCUMENTS, TOKENS))
    if requests <= 0 or documents <= 0:
        raise ProfileError("The service answered no request between the two readings.")
    size = max(1, round(documents / requests))
    return Traffic(requests / seconds, {size: 1.0}, tokens / documents)


def scorer_of_metrics(grown: Mapping[str, float], source: str) -> Scorer:
    """Raises: ProfileError if the scorers computed no batch."""
    seconds, tokens = grown.get(BATCH_SECONDS, 0.0), grown.get(SCORED_TOKENS, 0.0)
    if seconds <= 0 or tokens <= 0:
        raise ProfileError("The scorers computed no batch between the two readings.")
    pair_tokens = grown.get(TOKENS, 0.0) / max(1.0, grown.get(DOCUMENTS, 0.0))
    # The time of a batch includes `batch_s`.
    return Scorer(
        "scorer of the service",
        Basis.MEASURED,
        source,
        ((pair_tokens or PAIR_TOKENS, tokens / seconds),),
        batch_s=Seconds(0.0),
    )
