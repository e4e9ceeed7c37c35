"""Serve's autoscaling policy for scorers; ``docs/operate/scaling.md`` describes its configuration.

Ray calls the policy ten times a second on the controller's event loop, where an error would stop
every deployment of every application. So the policy does no I/O, and after an error a deployment
keeps its replicas.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray.serve.config import AutoscalingContext

from serve_app.domain.units import Instant, Tokens
from serve_app.scaling.backlogs import waiting_tokens
from serve_app.scaling.floors import Floor, floor_at
from serve_app.scaling.policy import Bounds, Goals, Load, Sample, decide, needed
from serve_app.telemetry.logs import get_logger

INFLIGHT_TOKENS_STAT = "inflight_tokens"
TOKENS_PER_S_STAT = "tokens_per_s"
BUSY_RATIO_STAT = "busy_ratio"

STALE_S = 10.0
"""Older reports are ignored."""

MISSING_S = 60.0
"""Missing replicas are logged after this time. A new node in a cloud may take longer to start."""

logger = get_logger("ray.serve")

Reports = Mapping[str, Sequence[Sequence[float]]]
"""For each stat, the values of each replica that reported recently, oldest first."""


@dataclass(frozen=True, slots=True)
class Missing:
    """Since when replicas that should run have been missing."""

    since: float
    logged: bool = False


class BacklogPolicy:
    """Scales the scorers of one model by tokens."""

    def __init__(self, floors: Sequence[Mapping[str, Any]] = (), **goals: float) -> None:
        """``floors``: arguments of `serve_app.scaling.floors.Floor.of`."""
        self._logged: set[str] = set()
        self._floors: tuple[Floor, ...] = ()
        self._goals = Goals()
        try:
            self._floors = tuple(Floor.of(**each) for each in floors)
            self._goals = Goals(**goals)  # type: ignore[arg-type]  # `Goals` checks the values
        except (TypeError, ValueError) as error:
            self._log_once(f"policy_kwargs: {error}; the defaults are used instead")

    def __call__(
        self, contexts: Mapping[Any, AutoscalingContext]
    ) -> tuple[dict[Any, int], dict[Any, dict[str, Any]]]:
        """Return the target replicas and the state for the next call, both by deployment.

        A deployment that is left out keeps its replicas.
        """
        targets: dict[Any, int] = {}
        states: dict[Any, dict[str, Any]] = {}
        for deployment, context in contexts.items():
            try:
                target, state = self._decide(context)
            except Exception as error:  # noqa: BLE001 - see the module's docstring
                self._log_once(f"{deployment} keeps its replicas: {error!r}")
            else:
                targets[deployment], states[deployment] = target, state
        return targets, states

    def _decide(self, context: AutoscalingContext) -> tuple[int, dict[str, Any]]:
        target = context.target_num_replicas
        reports = _recent_reports(context)
        tokens_per_s = _tokens_per_s(context, reports)
        load = _load(context, reports, tokens_per_s)
        if load.waiting_tokens is None and context.raw_metrics:
            self._log_once(
                f"{context.app_name} keeps its replicas: all their reports are older than "
                f"{STALE_S:g} s; if they run, synchronize the clocks of their nodes"
            )
        count = needed(load, target, self._goals)
        now = Instant(context.current_time)
        decision = decide(
            None if count is None else Sample(now, count),
            target,
            self._bounds(context),
            context.policy_state.get("history"),
            self._goals,
        )
        return decision.target, {
            "history": decision.history,
            "tokens_per_s": tokens_per_s,
            "missing": self._missing(context),
        }

    def _missing(self, context: AutoscalingContext) -> Missing | None:
        running, target = len(context.running_replicas), context.target_num_replicas
        if running >= target:
            return None
        now: float = context.current_time
        missing: Missing = context.policy_state.get("missing") or Missing(now)
        if missing.logged or now - missing.since < MISSING_S:
            return missing
        logger.error(
            "Autoscaling: %s has %d of %d replicas for %g s; no node has room for more, or they "
            "fail to start: see `serve status`",
            context.app_name,
            running,
            target,
            MISSING_S,
        )
        return Missing(missing.since, logged=True)

    def _bounds(self, context: AutoscalingContext) -> Bounds:
        most = context.capacity_adjusted_max_replicas
        floor = floor_at(self._floors, context.current_time)
        return Bounds(min(most, max(context.capacity_adjusted_min_replicas, floor)), most)

    def _log_once(self, problem: str) -> None:
        """The same problem would occur ten times a second."""
        if problem not in self._logged and len(self._logged) < 100:
            self._logged.add(problem)
            logger.error("Autoscaling: %s", problem)


def _tokens_per_s(context: AutoscalingContext, reports: Reports) -> float | None:
    """If no replica reports, return the last known speed."""
    reported = [series[-1] for series in reports.get(TOKENS_PER_S_STAT, [])]
    if reported:
        return sum(reported) / len(reported)
    last_known: float | None = context.policy_state.get("tokens_per_s")
    return last_known


def _load(context: AutoscalingContext, reports: Reports, tokens_per_s: float | None) -> Load:
    latest = {stat: [series[-1] for series in replicas] for stat, replicas in reports.items()}
    busy = reports.get(BUSY_RATIO_STAT, [])
    known = bool(busy) or context.current_num_replicas == 0
    return Load(
        waiting_tokens=waiting_tokens(latest) if known else None,
        inflight_tokens=Tokens(round(sum(latest.get(INFLIGHT_TOKENS_STAT, [])))),
        tokens_per_s=tokens_per_s,
        busy_replicas=sum(sum(each) / len(each) for each in busy),
        portions=context.total_num_requests,
    )


def _recent_reports(context: AutoscalingContext) -> Reports:
    return {
        stat: [
            [point.value for point in series]
            for series in by_replica.values()
            if series and context.current_time - series[-1].timestamp <= STALE_S
        ]
        for stat, by_replica in (context.raw_metrics or {}).items()
    }
