"""Queue portions until the fair queue selects them and the replicas have room. Uses asyncio.

    enter ──> queued ──(its turn, and there is room)──> on the replicas ──> leave

It runs on one event loop. `fair_queue` selects the next portion, `window` limits the tokens sent.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from serve_app.dispatch.fair_queue import FairQueue
from serve_app.dispatch.inflight_window import Answered, Window
from serve_app.domain.clock import Clock
from serve_app.domain.model import PortionScores
from serve_app.domain.priority import Claim
from serve_app.domain.units import RequestId, Seconds, Tokens


@dataclass(eq=False, slots=True)
class Turn:
    """One portion's place in the queue. It ends with one call of `Turnstile.leave` in any case."""

    job: RequestId
    tokens: Tokens
    came: asyncio.Future[None]
    """Done when the portion may be sent; cancelled when its caller no longer waits for it."""


class Turnstile:
    """The queue in front of one model's replicas."""

    def __init__(
        self,
        portion_tokens_max: Tokens,
        clock: Clock,
        tell_backlog: Callable[[Tokens], None],
        *,
        fair: bool,
    ) -> None:
        """With ``fair=False`` every portion may be sent immediately."""
        self._portion_tokens_max = portion_tokens_max
        self._window = Window(portion_tokens_max) if fair else None
        self._clock = clock
        self._tell_backlog = tell_backlog
        self._queue: FairQueue[Turn] = FairQueue()
        self._inflight_tokens = 0

    @property
    def portion_tokens(self) -> Tokens:
        return self._window.portion_tokens if self._window else self._portion_tokens_max

    @property
    def backlog_tokens(self) -> Tokens:
        return self._queue.tokens

    def enter(self, job: RequestId, claim: Claim, portions: Sequence[Tokens]) -> list[Turn]:
        """Queue a job's portions in this order and return a turn for each."""
        loop = asyncio.get_running_loop()
        turns = [Turn(job, tokens, loop.create_future()) for tokens in portions]
        self._queue.add(job, claim, turns)
        self._advance()
        return turns

    def leave(self, turn: Turn) -> None:
        """Free the turn's room. If the turn has not come yet, remove its whole job."""
        if turn.came.done() and not turn.came.cancelled():
            self._inflight_tokens -= turn.tokens
        else:
            self._queue.drop(turn.job)
        self._advance()

    def answered(self, turn: Turn, scores: PortionScores, elapsed_s: Seconds) -> None:
        if self._window is not None:
            answer = Answered(scores, turn.tokens, elapsed_s, others_wait=len(self._queue) > 0)
            self._window.answered(answer, self._clock.instant())

    def lost_all(self) -> None:
        if self._window is not None:
            self._window.lost_all()

    def _advance(self) -> None:
        while (turn := self._queue.peek()) is not None and self._has_room(turn.tokens):
            self._queue.take()
            if not turn.came.cancelled():
                self._inflight_tokens += turn.tokens
                turn.came.set_result(None)
        self._tell_backlog(self._queue.tokens)

    def _has_room(self, tokens: Tokens) -> bool:
        """Whether a portion fits. One portion always does, however small the window."""
        if self._window is None or self._inflight_tokens == 0:
            return True
        return self._inflight_tokens + tokens <= self._window.tokens(self._clock.instant())
