"""Queue portions until the fair queue selects them and the replicas have room. Pure."""

from collections.abc import Sequence
from typing import Generic

from serve_app.dispatch.fair_queue import FairQueue, T
from serve_app.dispatch.inflight_window import Answered, InflightWindow
from serve_app.domain.priority import Claim
from serve_app.domain.units import Instant, RequestId, Tokens


class PortionQueue(Generic[T]):
    """The portions of one gateway for one model, queued or on the replicas."""

    def __init__(self, window: InflightWindow) -> None:
        self._window = window
        self._queue: FairQueue[T] = FairQueue()
        self._inflight_tokens = 0

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def portion_tokens(self) -> Tokens:
        return self._window.portion_tokens

    @property
    def replica_tokens_per_s(self) -> float | None:
        return self._window.replica_tokens_per_s

    @property
    def queued_tokens(self) -> Tokens:
        return self._queue.tokens

    @property
    def inflight_tokens(self) -> Tokens:
        return Tokens(self._inflight_tokens)

    def add(self, job: RequestId, claim: Claim, portions: Sequence[T]) -> None:
        self._queue.add(job, claim, portions)

    def drop(self, job: RequestId) -> None:
        self._queue.drop(job)

    def take(self, now: Instant) -> T | None:
        """Return the next portion if it has room. The caller must send it."""
        portion = self._queue.peek()
        if portion is None or not self._has_room(portion.tokens, now):
            return None
        self._queue.take()
        self._inflight_tokens += portion.tokens
        return portion

    def leave(self, tokens: Tokens) -> None:
        """Free the room of a portion that `take` returned."""
        self._inflight_tokens -= tokens

    def answered(self, answer: Answered, now: Instant) -> None:
        self._window.answered(answer, now)

    def lost_all(self) -> None:
        self._window.lost_all()

    def _has_room(self, tokens: Tokens, now: Instant) -> bool:
        """One portion always fits, however small the window."""
        if self._inflight_tokens == 0:
            return True
        return self._inflight_tokens + tokens <= self._window.tokens(now)
