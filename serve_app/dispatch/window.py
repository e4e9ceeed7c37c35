"""How much of one model's work may be on its replicas at once. Pure: no clock, no asyncio.

What is on the replicas cannot be overtaken any more, so it should be little; but a replica must
have its next batch before it has finished this one. About two portions for each replica do both. A
gateway knows neither how many replicas there are nor what other gateways send, and reads both from
the answers: which replicas they come from, and how long the portions waited there.

    hardly at all, and the way there and back takes long: more
    longer than a batch runs:                             less
    longer than people notice, and than they run alone:   less

However long the way is, a replica is sent no more than two portions, or what it scores in `AHEAD_S`
if that is more.
"""

from dataclasses import dataclass

from serve_app.dispatch.portion_size import RUN_S, PortionSize
from serve_app.domain.model import PortionScores
from serve_app.domain.units import Instant, Seconds, Tokens

DEPTH = 2.5
"""Portions for each replica, to begin with: one that runs, one that is next, and room for small
ones beside them."""

DEPTH_MIN = 0.5
DEPTH_MAX = 8.0
STEP = 1.25

AHEAD_S = DEPTH * RUN_S
AHEAD_PORTIONS = 2
"""One that runs and one that is next: of a slow replica that is enough, and more would be waited
for by whoever comes."""

REPLICA_MEMORY_S = 30.0
"""A replica that has not answered for so long is no longer counted."""

BATCHING_S = 0.005
"""A wait of this length is none: a replica itself waits for company for a moment."""

SHORT_WAIT_RUNS = 0.25
LONG_WAIT_RUNS = 1.25
LONG_WAIT_S = RUN_S
LONG_WAIT_OWN_RUNS = 1.5
"""Of the part of its batch's run that is a portion's own. Batches hold what waits, so that beside
other gateways nobody would ever wait for much longer than a batch."""

IDLE_RUNS = 0.03
"""A replica that idles for less than this part of its time is busy enough."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A portion that came back."""

    scores: PortionScores
    tokens: Tokens
    elapsed_s: Seconds
    """From the call to its answer."""

    others_wait: bool
    """Whether there are portions that wait for room on the replicas."""


class Window:
    """The tokens that may be on one model's replicas at once, for this gateway."""

    def __init__(self, portion_tokens_max: Tokens) -> None:
        self._portion_size = PortionSize(portion_tokens_max)
        self._replicas: dict[str, Instant] = {}
        self._depth = DEPTH
        self._round = _Round()

    @property
    def portion_tokens(self) -> Tokens:
        """Most tokens that should go to a replica as one."""
        return self._portion_size.tokens

    def tokens(self, now: Instant) -> Tokens:
        """At least enough for one replica, for a model that has none yet."""
        self._forget_old(now)
        portion, speed = self._portion_size.tokens, self._portion_size.tokens_per_s
        each = self._depth * portion
        if speed is not None:
            each = min(each, max(AHEAD_PORTIONS * portion, AHEAD_S * speed))
        return Tokens(round(max(1, len(self._replicas)) * each))

    def answered(self, answer: Answered, now: Instant) -> None:
        """Learn from a portion that was scored."""
        self._replicas[answer.scores.replica_id] = now
        self._portion_size.answered(answer.scores)
        self._round.add(answer)
        if self._round.tokens >= self.tokens(now):
            self._depth = min(DEPTH_MAX, max(DEPTH_MIN, self._depth * self._round.verdict()))
            self._round = _Round()

    def lost_all(self) -> None:
        """There is no replica any more."""
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
    """About one window's worth of answers. Times are sums over tokens, so that the many small
    portions that ride along do not hide what the large ones say."""

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
        """By how much to change the depth."""
        wait = self._wait - BATCHING_S * self.tokens
        noticed = max(LONG_WAIT_S * self.tokens, LONG_WAIT_OWN_RUNS * self._own_run)
        if wait > min(LONG_WAIT_RUNS * self._run, noticed):
            return 1 / STEP
        idle = self._elapsed - self._run - self._wait > IDLE_RUNS * self._run
        return STEP if self._others_wait and wait < SHORT_WAIT_RUNS * self._run and idle else 1.0
