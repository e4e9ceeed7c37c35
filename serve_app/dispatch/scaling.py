"""How many replicas a deployment should have. Pure: no clock, no asyncio, no Ray.

    needed   (waiting + inflight tokens) / (tokens per second of a replica x target delay)
    target   stays between the least that was needed lately and the most that was needed for long

So a burst that is over at once starts nothing, and load that comes and goes stops nothing. Loads
are told once a second and stand until the next: one of them by itself starts nothing.
"""

import math
from dataclasses import dataclass

from serve_app.dispatch.portion_size import RUN_S
from serve_app.domain.units import Instant, Seconds, Tokens

DELAY_S = Seconds(1)
UP_AFTER_S = Seconds(1.5)
DOWN_AFTER_S = Seconds(300)
ZERO_AFTER_S = Seconds(600)

TOLERANCE_REPLICAS = 0.1
"""One replica more is not worth starting for a smaller part of it."""

GAP_S = 5.0
"""After a silence as long as this nothing is known of the time before."""

WORK_KEPT = 0.9
"""What a batch leaves of the weight of those before it in a replica's measured speed."""

LARGEST_KEPT = 0.95
"""What a batch leaves of the size of the largest. One of less than half of it, and short, says how
long a pass takes at least and not how fast a card is."""


@dataclass(frozen=True, slots=True)
class Goals:
    """What the number of replicas is chosen for."""

    delay_s: Seconds = DELAY_S
    """All that is there should be scored within this."""

    up_after_s: Seconds = UP_AFTER_S
    """More replicas are started once they have been needed for this long."""

    down_after_s: Seconds = DOWN_AFTER_S
    """Replicas are stopped once they have not been needed for this long."""

    zero_after_s: Seconds = ZERO_AFTER_S
    """The last one is stopped once there was nothing to do for this long; only where the
    deployment's least number is 0."""

    busy_max: float = 0.8
    """Replicas are not stopped where the rest would be busy for more of their time than this."""

    def __post_init__(self) -> None:
        times_s = (self.delay_s, self.up_after_s, self.down_after_s, self.zero_after_s)
        if not all(math.isfinite(each) and each > 0 for each in times_s):
            raise ValueError("every time must be above 0")
        if not 0 < self.busy_max <= 1:
            raise ValueError("busy_max must be above 0 and at most 1")


@dataclass(frozen=True, slots=True)
class Load:
    """What is known of one model's work now."""

    waiting_tokens: Tokens | None
    """In the gateways' queues; ``None`` when no gateway has told lately."""

    inflight_tokens: Tokens
    """On the replicas, waiting or running."""

    tokens_per_s: float | None
    """Of one replica while it is busy; ``None`` when none has told lately."""

    busy_replicas: float
    """The sum, over the replicas, of the part of their time that they were busy lately."""

    portions: float
    """Under way to replicas or on them lately: also those that wait for the first one to start."""


def needed(load: Load, target: int, goals: Goals) -> int | None:
    """Replicas that ``load`` needs; ``None`` when that is not known."""
    if load.waiting_tokens is None:
        return None
    tokens = load.waiting_tokens + load.inflight_tokens
    if tokens == 0 and load.busy_replicas == 0 and load.portions == 0:
        return 0
    if not load.tokens_per_s:
        return max(1, target)  # They do not work yet, or not any more; fewer would not help.
    wanted = tokens / (load.tokens_per_s * goals.delay_s)
    # A replica that keeps up has little waiting: what is there does not say that it is needed.
    kept_busy = min(target, math.ceil(load.busy_replicas / goals.busy_max))
    return max(1, kept_busy, math.ceil(wanted - TOLERANCE_REPLICAS))


@dataclass(frozen=True, slots=True)
class Bounds:
    """Replicas that a deployment may have."""

    least: int
    most: int


@dataclass(frozen=True, slots=True)
class Sample:
    """What was needed at one time."""

    at: Instant
    needed: int


@dataclass(frozen=True, slots=True)
class History:
    """What was needed lately, without a gap; no more than `decide` asks about."""

    since: Instant
    last: Instant
    worked: Instant
    """When anything was needed last; ``since`` if nothing ever was."""

    lows: tuple[Sample, ...] = ()
    """Each needed less than those after it; the first is the least of ``up_after_s``."""

    highs: tuple[Sample, ...] = ()
    """Each needed more than those after it; the first is the most of ``down_after_s``."""


@dataclass(frozen=True, slots=True)
class Decision:
    """How many replicas there should be, and what to remember for the next time."""

    target: int
    history: History | None


def decide(
    sample: Sample | None, target: int, bounds: Bounds, history: History | None, goals: Goals
) -> Decision:
    """The number of replicas to have from now on.

    Args:
        sample: What is needed now; ``None`` when that is not known: everything stays as it is.
        target: The number that there should have been until now.
        bounds: Of the answer.
        history: Of the decision before; ``None`` for the first one, or after a restart.
        goals: The times.
    """
    kept = min(bounds.most, max(bounds.least, target))
    if sample is None:
        return Decision(kept, None)
    needed = min(bounds.most, max(1, sample.needed))  # Whether none is enough: `zero_after_s`.
    history = _remember(history, sample, needed, goals)
    known_s = sample.at - history.since
    if kept == 0:
        kept = min(1, sample.needed)  # The first one at once: somebody waits for it.
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


class Speedometer:
    """A replica's own account of how fast it is and how busy it was."""

    def __init__(self, now: Instant) -> None:
        self._tokens = self._run_s = self._busy_s = 0.0
        self._largest = 0.0
        self._asked_at = now

    def ran(self, tokens: Tokens, run_s: Seconds) -> None:
        """Count a batch; ``tokens``: that were scored in it."""
        self._busy_s += run_s
        if tokens > 2 * self._largest:  # All before were small.
            self._tokens = self._run_s = 0.0
        self._largest = max(float(tokens), LARGEST_KEPT * self._largest)
        if tokens and (tokens >= self._largest / 2 or run_s >= RUN_S):
            self._tokens = WORK_KEPT * self._tokens + tokens
            self._run_s = WORK_KEPT * self._run_s + run_s

    @property
    def tokens_per_s(self) -> float | None:
        """Over the last large batches; ``None`` before the first of any size."""
        return self._tokens / self._run_s if self._run_s > 0 else None

    def busy_ratio(self, now: Instant) -> float:
        """Time in batches that ended since the last call, over the time since then."""
        elapsed_s = now - self._asked_at
        ratio = self._busy_s / elapsed_s if elapsed_s > 0 else 0.0
        self._busy_s, self._asked_at = 0.0, now
        return ratio
