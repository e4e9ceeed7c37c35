"""Queue portions until the fair queue selects them and the replicas have room. Uses asyncio.

    enter ──> queued ──(it is next, and there is room)──> on the replicas ──> leave

It runs on one event loop. `inflight_window` limits the tokens sent.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from serve_app.dispatch.fair_queue import FairQueue
from serve_app.dispatch.inflight_window import Answered, InflightWindow
from serve_app.domain.clock import Clock
from serve_app.domain.model import PortionScores
from serve_app.domain.priority import Claim
from serve_app.domain.units import RequestId, Tokens


@dataclass(eq=False, slots=True)
class QueuePlace:
    """One portion's place in the queue. `DispatchQueue.leave` must be called once for it."""

    job: RequestId
    tokens: Tokens
    granted: asyncio.Future[None]
    """Done when the portion may be sent, and cancelled when its caller no longer waits."""


class DispatchQueue:
    """The queue in front of one model's replicas."""

    def __init__(
        self,
        portion_tokens_max: Tokens,
        clock: Clock,
        report_backlog: Callable[[Tokens], None],
    ) -> None:
        self._window = InflightWindow(portion_tokens_max)
        self._clock = clock
        self._report_backlog = report_backlog
        self._queue: FairQueue[QueuePlace] = FairQueue()
        self._inflight_tokens = 0

    @property
    def portion_tokens(self) -> Tokens:
        return self._window.portion_tokens

    @property
    def backlog_tokens(self) -> Tokens:
        return self._queue.tokens

    def enter(self, job: RequestId, claim: Claim, portions: Sequence[Tokens]) -> list[QueuePlace]:
        """Queue a job's portions in this order and return the place of each."""
        loop = asyncio.get_running_loop()
        places = [QueuePlace(job, tokens, loop.create_future()) for tokens in portions]
        self._queue.add(job, claim, places)
        self._advance()
        return places

    def leave(self, place: QueuePlace) -> None:
        """Free the portion's room. If it was not granted yet, remove its whole job."""
        if place.granted.done() and not place.granted.cancelled():
            self._inflight_tokens -= place.tokens
        else:
            self._queue.drop(place.job)
        self._advance()

    def answered(self, place: QueuePlace, scores: PortionScores) -> None:
        answer = Answered(scores, place.tokens, others_wait=len(self._queue) > 0)
        self._window.answered(answer, self._clock.instant())

    def lost_all(self) -> None:
        self._window.lost_all()

    def _advance(self) -> None:
        while (place := self._queue.peek()) is not None and self._has_room(place.tokens):
            self._queue.take()
            if not place.granted.cancelled():
                self._inflight_tokens += place.tokens
                place.granted.set_result(None)
        self._report_backlog(self._queue.tokens)

    def _has_room(self, tokens: Tokens) -> bool:
        """Whether a portion fits. One portion always does, however small the window."""
        if self._inflight_tokens == 0:
            return True
        return self._inflight_tokens + tokens <= self._window.tokens(self._clock.instant())
