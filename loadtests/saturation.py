"""What saturates first: compares the step with the lowest load to the first one above the limit."""

from collections.abc import Sequence
from typing import Any

LEDGER_STAGES = ("reserve", "commit")
SCORERS, GATEWAYS, LEDGER = "scorers", "gateways", "ledger"
LIMITS, GENERATOR, UNKNOWN = "limits of the API keys", "load generator", "unknown"
KEY_LIMIT_CODES = ("rate_limit_exceeded", "out_of_credit", "spend_cap_reached")


def saturated(steps: Sequence[dict[str, Any]]) -> tuple[str, str]:
    """Return the part that saturates first, and the observation that shows it.

    Above the limit, the time that requests wait for the saturated part grows. The server reports
    how long a request waited for scorers and how long it was computed. The rest of the latency is
    spent in gateways, the ledger and the network. The stages `reserve` and `commit` in the
    service's metrics are the time in the ledger.

    Args:
        steps: The steps of a sweep, as in its JSON file.
    """
    missed = [step for step in steps if not step["is_kept"]]
    if not missed:
        return UNKNOWN, "every step kept the target"
    light = min(steps, key=_load)
    over = min(missed, key=_load)
    if over["summary"]["generator"]["is_bottleneck"]:
        return GENERATOR, "the load generator could not keep to its schedule"
    most_frequent = next(iter(over["summary"]["problems"]), None)
    if most_frequent in KEY_LIMIT_CODES:
        return LIMITS, f"most refusals have the code {most_frequent}"
    times, before = over["summary"]["server_times"], light["summary"]["server_times"]
    if times["queue_ms"] is None or before["queue_ms"] is None:
        return UNKNOWN, "the server sends no Server-Timing"
    if light is over:
        return UNKNOWN, "no step kept the target"
    return _most_grown(times, before, over["stage_ms"], light["stage_ms"])


def _load(step: dict[str, Any]) -> float:
    return float(step["summary"]["total"]["documents_per_s"])


def _most_grown(
    times: dict[str, float],
    before: dict[str, float],
    stages: dict[str, float],
    stages_before: dict[str, float],
) -> tuple[str, str]:
    scoring = sum(times[name] - before[name] for name in ("queue_ms", "run_ms"))
    rest = times["rest_ms"] - before["rest_ms"]
    ledger = sum(stages.get(stage, 0.0) - stages_before.get(stage, 0.0) for stage in LEDGER_STAGES)
    grown = f"scoring takes {_more(scoring)}, the rest of a request {_more(rest)}"
    if stages:
        grown += f", of which the ledger {_more(ledger)}"
    if scoring >= rest:
        return SCORERS, grown
    return (LEDGER if ledger > rest / 2 else GATEWAYS), grown


def _more(milliseconds: float) -> str:
    return f"{round(milliseconds):+,} ms"
