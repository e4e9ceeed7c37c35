"""The summary of a run: figures of all requests, and of each class, tenant and tier, as JSON.

`loadtests/README.md` describes the fields for programs that read the file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtests.plan import Plan
from loadtests.records import Table, select

VERSION = 1
SCHEDULE_ERROR_MAX_MS = 5.0
"""If the 99th percentile of the schedule error is higher, the generator is the bottleneck."""

REFUSED = (429, 503)
PERCENTILES = (50, 90, 95, 99)


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of some requests; rates are per second of the measured time."""

    name: str
    requests: int
    requests_per_s: float
    """Requests that were due, whatever their answers."""

    documents_per_s: float
    documents: dict[str, float]
    """Documents per request: mean and percentiles."""

    pair_tokens_mean: float | None
    """Tokens per pair that the server counted in correct answers."""

    dollars_per_1000_documents: float | None
    """Charge of correct answers, if the server sends it."""

    gaps_cv: float | None
    """Coefficient of variation of the gaps between arrivals: 1 is a Poisson process."""

    latency_ms: dict[str, float] | None
    """Latency of correct answers from the scheduled time: mean, percentiles and maximum."""

    p99_ms: float | None
    """99th percentile of the latency of all requests, where refused and failed ones count as
    infinite; null if more than 1 % were refused or failed."""

    goodput_requests_per_s: float
    """Correct answers."""

    goodput_documents_per_s: float
    refused_ratio: float
    """Share of requests that got status 429 or 503."""

    error_ratio: float
    """Share of requests without a correct answer that were not refused: another status than 200, a
    wrong answer or none."""

    statuses: dict[str, int]
    """Number of requests by HTTP status; 0 without an answer."""


def figures(name: str, table: Table, seconds: float) -> Figures:
    """Return the figures of the requests in ``table``, which were due within ``seconds``."""
    correct = table["correct"] == 1
    refused = np.isin(table["status"], REFUSED)
    documents = table["documents"]
    requests = len(documents)
    answered = select(table, correct & ~np.isnan(table["tokens"]))
    charged = select(table, correct & ~np.isnan(table["micro_dollars"]))
    statuses, counts = np.unique(table["status"], return_counts=True)
    return Figures(
        name,
        requests,
        round(requests / seconds, 3),
        round(float(documents.sum()) / seconds, 1),
        distribution(documents) or {},
        _ratio(answered["tokens"].sum(), answered["documents"].sum()),
        _ratio(charged["micro_dollars"].sum() / 1_000, charged["documents"].sum(), 6),
        gaps_cv(table["at_s"]),
        distribution(1_000 * table["latency_s"][correct]),
        p99_of_all_ms(table),
        round(float(correct.sum()) / seconds, 3),
        round(float(documents[correct].sum()) / seconds, 1),
        _ratio(refused.sum(), requests) or 0.0,
        _ratio((~correct & ~refused).sum(), requests) or 0.0,
        {f"{status:.0f}": int(count) for status, count in zip(statuses, counts, strict=True)},
    )


def distribution(values: NDArray[np.float64]) -> dict[str, float] | None:
    """Return mean, percentiles and maximum; ``None`` without values."""
    if not len(values):
        return None
    cuts = np.percentile(values, PERCENTILES, method="inverted_cdf")
    named = {f"p{share}": float(cut) for share, cut in zip(PERCENTILES, cuts, strict=True)}
    found = {"mean": float(values.mean()), **named, "max": float(values.max())}
    return {name: round(value, 3) for name, value in found.items()}


def p99_of_all_ms(table: Table) -> float | None:
    """Return the 99th percentile of the latency, where failed requests count as infinite."""
    if not len(table["correct"]):
        return None
    latencies = np.where(table["correct"] == 1, table["latency_s"], np.inf)
    p99 = 1_000 * float(np.percentile(latencies, 99, method="inverted_cdf"))
    return round(p99, 3) if np.isfinite(p99) else None


def gaps_cv(at_s: NDArray[np.float64]) -> float | None:
    gaps = np.diff(np.sort(at_s))
    return _ratio(gaps.std(), gaps.mean()) if len(gaps) > 1 else None


def _ratio(part: float, whole: float, digits: int = 4) -> float | None:
    return round(float(part / whole), digits) if whole else None


def measured(table: Table, plan: Plan) -> Table:
    """Return the requests that were due after the warm-up."""
    return select(table, table["at_s"] >= plan.warm_up_s)


def groups(table: Table, column: str, names: Sequence[str], seconds: float) -> list[dict[str, Any]]:
    """Return the figures by the value of a column of indices."""
    return [
        asdict(figures(name, select(table, table[column] == index), seconds))
        for index, name in enumerate(names)
    ]


def timeline(table: Table, duration_s: float, every_s: float) -> list[dict[str, Any]]:
    """Return rates and latencies in intervals of ``every_s`` by scheduled time."""
    rows = []
    begins, ends = table["at_s"], np.sort(table["at_s"] + table["latency_s"])
    for begin in np.arange(0.0, duration_s, every_s):
        in_flight = np.searchsorted(begins, begin) - np.searchsorted(ends, begin)
        part = select(table, (table["at_s"] >= begin) & (table["at_s"] < begin + every_s))
        seconds = min(every_s, duration_s - float(begin))
        each = figures("", part, seconds)
        rows.append(
            {
                "at_s": round(float(begin), 3),
                "requests_per_s": each.requests_per_s,
                "documents_per_s": each.documents_per_s,
                "goodput_documents_per_s": each.goodput_documents_per_s,
                "p50_ms": each.latency_ms["p50"] if each.latency_ms else None,
                "p99_ms": each.latency_ms["p99"] if each.latency_ms else None,
                "refused_ratio": each.refused_ratio,
                "error_ratio": each.error_ratio,
                "in_flight": int(in_flight),
            }
        )
    return rows


def generator(table: Table, processes: int, lost: int, *, busy: bool) -> dict[str, Any]:
    """Describe how well the processes of the load test kept to the schedule.

    Args:
        lost: Number of processes that did not report until the end of the run.
        busy: Whether a process used more than 90 % of a core.
    """
    errors = distribution(1_000 * table["schedule_error_s"])
    late = errors is not None and errors["p99"] > SCHEDULE_ERROR_MAX_MS
    return {
        "processes": processes,
        "lost_processes": lost,
        "schedule_error_ms": errors,
        "busy": busy,
        "is_bottleneck": late or busy,
    }


def server_times(table: Table) -> dict[str, float | None]:
    """Return the mean parts of the latency of correct answers that the server reports."""
    answers = select(table, (table["correct"] == 1) & ~np.isnan(table["queue_s"]))
    if not len(answers["at_s"]):
        return {"queue_ms": None, "run_ms": None, "rest_ms": None}
    scored_s = answers["queue_s"] + answers["run_s"]
    rest_s = np.maximum(0.0, answers["latency_s"] - scored_s)  # Portions may run at the same time.
    parts = {"queue_ms": answers["queue_s"], "run_ms": answers["run_s"], "rest_ms": rest_s}
    return {name: round(1_000 * float(each.mean()), 3) for name, each in parts.items()}


def summarize(
    table: Table, plan: Plan, tenants: int, made_by: dict[str, Any], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the summary of a run.

    Args:
        tenants: Number of API keys.
        made_by: The result of `generator`.
        facts: Further facts of the run, such as its host and start.
    """
    seconds = plan.duration_s - plan.warm_up_s
    part = measured(table, plan)
    every_s = max(1.0, plan.duration_s / 120)
    names = [f"tenant {number}" for number in range(1, tenants + 1)]
    tiers = [name for name, _ in plan.tiers]
    return {
        "version": VERSION,
        **facts,
        "plan": plan.as_json(),
        "seconds": seconds,
        "generator": made_by,
        "server_times": server_times(part),
        "total": asdict(figures("all", part, seconds)),
        "classes": groups(part, "kind", plan.classes, seconds),
        "tenants": groups(part, "tenant", names, seconds),
        "tiers": groups(part, "tier", tiers, seconds) if tiers else [],
        "timeline": timeline(table, plan.duration_s, every_s),
    }
