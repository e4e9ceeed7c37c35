"""Limit the tokens of one model that are on its replicas. Pure.

Work on a replica cannot be overtaken, but a replica must have its next batch before it finishes the
current one. A gateway infers the number of replicas and their load from the answers (decision
0016):

    portions wait longer than a batch runs:                smaller window
    portions hardly wait, and others are queued here:      larger window
"""

from dataclasses import dataclass

from serve_app.domain.model import PortionScores
from serve_app.domain.portion_size import tokens_in_time
from serve_app.domain.units import Instant, Tokens

DEPTH = 2.5
"""Initial portions per replica: a running one, the next one, and room for small ones."""

DEPTH_MIN = 0.5
DEPTH_MAX = 3.0
STEP = 1.25

REPLICA_MEMORY_S = 30.0
"""A replica that has not answered for this time is not counted."""

BATCHING_S = 0.005
"""Subtracted from each wait, because a replica waits briefly to fill a batch."""

SHORT_WAIT_RUNS = 0.25
LONG_WAIT_RUNS = 1.25
"""Thresholds of the mean wait, relative to the mean run time."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A scored portion."""

    scores: PortionScores
    tokens: Tokens
    others_wait: bool


class InflightWindow:
    """The limit of this gateway's tokens on one model's replicas."""

    def __init__(self, portion_tokens_max: Tokens) -> None:
        self._portion_tokens_max = portion_tokens_max
        self._tokens_per_s = 0.0
        self._replicas: dict[str, Instant] = {}
        self._depth = DEPTH
        self._round = _Round()

    @property
    def portion_tokens(self) -> Tokens:
        """Most tokens of a portion, except for a single pair that is longer."""
        return Tokens(min(tokens_in_time(self._tokens_per_s), self._portion_tokens_max))

    @property
    def replica_tokens_per_s(self) -> float | None:
        """Speed of the replica that answered last; ``None`` if unknown."""
        return self._tokens_per_s or None

    def tokens(self, now: Instant) -> Tokens:
        """The limit suffices for one replica, even if none is known."""
        self._forget_old(now)
        return Tokens(round(max(1, len(self._replicas)) * self._depth * self.portion_tokens))

    def answered(self, answer: Answered, now: Instant) -> None:
        self._replicas[answer.scores.replica_id] = now
        self._tokens_per_s = answer.scores.tokens_per_s
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
    """About one window's worth of answers.

    Times are weighted by tokens, so that many small portions do not hide the waits of large ones.
    """

    def __init__(self) -> None:
        self.tokens = 0
        self._others_wait = False
        self._wait = 0.0
        self._run = 0.0

    def add(self, answer: Answered) -> None:
        self.tokens += answer.tokens
        self._others_wait |= answer.others_wait
        self._wait += (answer.scores.queue_wait_s - BATCHING_S) * answer.tokens
        self._run += answer.scores.run_s * answer.tokens

    def verdict(self) -> float:
        """Return the factor by which to change the depth."""
        if self._wait > LONG_WAIT_RUNS * self._run:
            return 1 / STEP
        return STEP if self._others_wait and self._wait < SHORT_WAIT_RUNS * self._run else 1.0
