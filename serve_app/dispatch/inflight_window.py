"""Limit one model's tokens that are on its replicas concurrently. Pure: no clock, no asyncio.

Work on a replica cannot be overtaken, so there should be little of it. But a replica must have its
next batch before it finishes the current one. About two portions per replica satisfy both. A
gateway knows neither the number of replicas nor the load from other gateways. It infers both from
the answers: which replicas they come from, and how long the portions waited there.

    hardly any wait, and a long round trip:                                   larger window
    waits longer than a batch runs:                                           smaller window
    waits that people notice, and longer than the portion's own run:          smaller window

However long the round trip is, a replica gets at most two portions, or the tokens that it scores in
`AHEAD_S` if that is more.
"""

from dataclasses import dataclass

from serve_app.dispatch.portions import PortionSize
from serve_app.domain.model import PortionScores
from serve_app.domain.portion_size import RUN_S
from serve_app.domain.units import Instant, Seconds, Tokens

DEPTH = 2.5
"""Initial portions per replica: one that runs, one that is next, and room for small ones."""

DEPTH_MIN = 0.5
DEPTH_MAX = 8.0
STEP = 1.25

AHEAD_S = DEPTH * RUN_S
AHEAD_PORTIONS = 2
"""One portion runs and one is next. That is enough for a slow replica; more would only delay new
jobs."""

REPLICA_MEMORY_S = 30.0
"""A replica that has not answered for this time is no longer counted."""

BATCHING_S = 0.005
"""Waits up to this length do not count: a replica itself waits briefly to fill a batch."""

SHORT_WAIT_RUNS = 0.25
LONG_WAIT_RUNS = 1.25
LONG_WAIT_S = RUN_S
LONG_WAIT_OWN_RUNS = 1.5
"""Threshold relative to the portion's own share of the batch's run time. Needed because a batch
absorbs everything that is queued, so with several gateways waits hardly exceed one batch run."""

IDLE_RUNS = 0.03
"""A replica is busy enough if it idles for less than this fraction of its run time."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A scored portion."""

    scores: PortionScores
    tokens: Tokens
    elapsed_s: Seconds
    others_wait: bool


class Window:
    """Tokens of this gateway that may be on one model's replicas concurrently."""

    def __init__(self, portion_tokens_max: Tokens) -> None:
        self._portion_size = PortionSize(portion_tokens_max)
        self._replicas: dict[str, Instant] = {}
        self._depth = DEPTH
        self._round = _Round()

    @property
    def portion_tokens(self) -> Tokens:
        return self._portion_size.tokens

    def tokens(self, now: Instant) -> Tokens:
        """Return the limit: at least enough for one replica, even if none is known."""
        self._forget_old(now)
        portion, speed = self._portion_size.tokens, self._portion_size.tokens_per_s
        each = self._depth * portion
        if speed is not None:
            each = min(each, max(AHEAD_PORTIONS * portion, AHEAD_S * speed))
        return Tokens(round(max(1, len(self._replicas)) * each))

    def answered(self, answer: Answered, now: Instant) -> None:
        self._replicas[answer.scores.replica_id] = now
        self._portion_size.answered(answer.scores)
        self._round.add(answer)
        if self._round.tokens >= self.tokens(now):
            self._depth = min(DEPTH_MAX, max(DEPTH_MIN, self._depth * self._round.verdict()))
            self._round = _Round()

    def lost_all(self) -> None:
        self._replicas.clear()
        self._depth = DEPTH
        self._round = _Round()

    def _forget_old(self, now: Instant) -> None:
        old = [name for name, at in self._replicas.items() if at < now - REPLICA_MEMORY_S]
        for name in old:
            del self._replicas[name]
        if old and not self._replicas:
            self.lost_all()


class _Round:
    """About one window's worth of answers. Times are weighted by tokens, so that many small
    portions do not hide the waits of large ones."""

    def __init__(self) -> None:
        self.tokens = 0
        self._others_wait = False
        self._wait = 0.0
        self._run = 0.0
        self._own_run = 0.0
        self._elapsed = 0.0

    def add(self, answer: Answered) -> None:
        self.tokens += answer.tokens
        self._others_wait |= answer.others_wait
        self._wait += answer.scores.queue_wait_s * answer.tokens
        self._run += answer.scores.run_s * answer.tokens
        share = answer.tokens / max(answer.tokens, answer.scores.batch_tokens)
        self._own_run += share * answer.scores.run_s * answer.tokens
        self._elapsed += answer.elapsed_s * answer.tokens

    def verdict(self) -> float:
        """Return the factor by which to change the depth."""
        wait = self._wait - BATCHING_S * self.tokens
        noticed = max(LONG_WAIT_S * self.tokens, LONG_WAIT_OWN_RUNS * self._own_run)
        if wait > min(LONG_WAIT_RUNS * self._run, noticed):
            return 1 / STEP
        idle = self._elapsed - self._run - self._wait > IDLE_RUNS * self._run
        return STEP if self._others_wait and wait < SHORT_WAIT_RUNS * self._run and idle else 1.0
