"""Compute how many replicas a deployment should have. Pure.

    needed   (queued + inflight tokens) / (tokens per second of a replica x target delay)
    target   at least the lowest need during `up_after_s`, at most the highest during `down_after_s`

So a short burst starts no replica, and a short pause stops none. Without a recent report, the
target does not change.
"""

import math
from dataclasses import dataclass

from serve_app.domain.units import Instant, Seconds, Tokens

DELAY_S = Seconds(1)
UP_AFTER_S = Seconds(1.5)
DOWN_AFTER_S = Seconds(300)
ZERO_AFTER_S = Seconds(600)

TOLERANCE_REPLICAS = 0.1
"""No replica is started for a smaller fraction than this."""

GAP_S = 5.0
"""A longer gap between samples discards the history."""


@dataclass(frozen=True, slots=True)
class Goals:
    """Targets for the number of replicas; see ``docs/operate/scaling.md``."""

    delay_s: Seconds = DELAY_S
    up_after_s: Seconds = UP_AFTER_S
    down_after_s: Seconds = DOWN_AFTER_S
    zero_after_s: Seconds = ZERO_AFTER_S
    busy_max: float = 0.8

    def __post_init__(self) -> None:
        times_s = (self.delay_s, self.up_after_s, self.down_after_s, self.zero_after_s)
        if not all(math.isfinite(each) and each > 0 for each in times_s):
            raise ValueError("every time must be above 0")
        if not 0 < self.busy_max <= 1:
            raise ValueError("busy_max must be above 0 and at most 1")


@dataclass(frozen=True, slots=True)
class Load:
    """Current load of one model."""

    waiting_tokens: Tokens | None
    """In the gateways' queues; ``None`` if no replica has reported recently."""

    inflight_tokens: Tokens
    """Waiting or running on the replicas."""

    tokens_per_s: float | None
    """Speed of a busy replica, as last reported; ``None`` before the first report."""

    busy_replicas: float
    """Sum of the replicas' recent busy ratios."""

    portions: float
    """Portions recently on replicas or under way, including those waiting for the first replica."""


def needed(load: Load, target: int, goals: Goals) -> int | None:
    """Return the replicas that ``load`` needs, or ``None`` if that is unknown."""
    if load.waiting_tokens is None:
        return None
    tokens = load.waiting_tokens + load.inflight_tokens
    if tokens == 0 and load.busy_replicas == 0 and load.portions == 0:
        return 0
    if not load.tokens_per_s:
        return max(1, target)  # No replica has reported its speed yet.
    wanted = tokens / (load.tokens_per_s * goals.delay_s)
    # Replicas that keep up have short queues, so the queued tokens alone would stop too many.
    kept_busy = min(target, math.ceil(load.busy_replicas / goals.busy_max))
    return max(1, kept_busy, math.ceil(wanted - TOLERANCE_REPLICAS))


@dataclass(frozen=True, slots=True)
class Bounds:
    """Minimum and maximum number of replicas."""

    least: int
    most: int


@dataclass(frozen=True, slots=True)
class Sample:
    """Replicas needed at one time."""

    at: Instant
    needed: int


@dataclass(frozen=True, slots=True)
class History:
    """Replicas needed recently, without a gap."""

    since: Instant
    last: Instant
    worked: Instant
    """When any replica was last needed; ``since`` if never."""

    lows: tuple[Sample, ...] = ()
    """Each is lower than all later ones; the first is the minimum of ``up_after_s``."""

    highs: tuple[Sample, ...] = ()
    """Each is higher than all later ones; the first is the maximum of ``down_after_s``."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The target, and the history for the next decision."""

    target: int
    history: History | None


def decide(
    sample: Sample | None, target: int, bounds: Bounds, history: History | None, goals: Goals
) -> Decision:
    """Return the new target and history.

    If ``sample`` is ``None``, the need is unknown, and the target only changes to fit ``bounds``.
    ``history`` is ``None`` at first, and after an unknown sample.
    """
    kept = min(bounds.most, max(bounds.least, target))
    if sample is None:
        return Decision(kept, None)
    needed = min(bounds.most, max(1, sample.needed))  # `zero_after_s` decides about 0 below.
    history = _remember(history, sample, needed, goals)
    known_s = sample.at - history.since
    if kept == 0:
        kept = min(1, sample.needed)  # A request waits for it.
    elif known_s >= goals.up_after_s:
        kept = max(kept, history.lows[0].needed)
    if known_s >= goals.down_after_s:
        kept = min(kept, history.highs[0].needed)
    if sample.at - history.worked >= goals.zero_after_s:
        kept = 0
    return Decision(min(bounds.most, max(bounds.least, kept)), history)


def _remember(history: History | None, sample: Sample, needed: int, goals: Goals) -> History:
    now = sample.at
    if history is None or not 0 <= now - history.last <= GAP_S:
        history = History(since=now, last=now, worked=now)
    clamped = Sample(now, needed)
    lows = [
        each for each in history.lows if each.at >= now - goals.up_after_s and each.needed < needed
    ]
    highs = [
        each
        for each in history.highs
        if each.at >= now - goals.down_after_s and each.needed > needed
    ]
    return History(
        since=history.since,
        last=now,
        worked=now if sample.needed else history.worked,
        lows=(*lows, clamped),
        highs=(*highs, clamped),
    )
