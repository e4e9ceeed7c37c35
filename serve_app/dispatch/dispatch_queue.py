"""The asyncio interface of `portion_queue`: callers wait until their portions may be sent.

It runs on one event loop.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from serve_app.dispatch.inflight_window import Answered, InflightWindow
from serve_app.dispatch.portion_queue import PortionQueue
from serve_app.domain.clock import Clock
from serve_app.domain.model import PortionScores
from serve_app.domain.priority import Claim
from serve_app.domain.units import RequestId, Tokens


@dataclass(eq=False, slots=True)
class QueuePlace:
    """One portion's place. `DispatchQueue.leave` must be called once for it."""

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
        self._portions: PortionQueue[QueuePlace] = PortionQueue(InflightWindow(portion_tokens_max))
        self._clock = clock
        self._report_backlog = report_backlog

    @property
    def portion_tokens(self) -> Tokens:
        return self._portions.portion_tokens

    @property
    def backlog_tokens(self) -> Tokens:
        return self._portions.queued_tokens

    @property
    def inflight_tokens(self) -> Tokens:
        return self._portions.inflight_tokens

    @property
    def replica_tokens_per_s(self) -> float | None:
        return self._portions.replica_tokens_per_s

    def enter(self, job: RequestId, claim: Claim, portions: Sequence[Tokens]) -> list[QueuePlace]:
        """Queue a job's portions, and return their places in order."""
        loop = asyncio.get_running_loop()
        places = [QueuePlace(job, tokens, loop.create_future()) for tokens in portions]
        self._portions.add(job, claim, places)
        self._advance()
        return places

    def leave(self, place: QueuePlace) -> None:
        """Free the portion's room. If it was not granted yet, remove its whole job."""
        if place.granted.done() and not place.granted.cancelled():
            self._portions.leave(place.tokens)
        else:
            self._portions.drop(place.job)
        self._advance()

    def answered(self, place: QueuePlace, scores: PortionScores) -> None:
        answer = Answered(scores, place.tokens, others_wait=len(self._portions) > 0)
        self._portions.answered(answer, self._clock.instant())

    def lost_all(self) -> None:
        self._portions.lost_all()

    def _advance(self) -> None:
        while (place := self._portions.take(self._clock.instant())) is not None:
            if place.granted.cancelled():
                self._portions.leave(place.tokens)
            else:
                place.granted.set_result(None)
        self._report_backlog(self._portions.queued_tokens)
