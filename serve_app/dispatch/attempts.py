"""Send one portion to the replicas until one answers.

A portion whose replica dies is sent again, because Ray never retries a call that a replica has
accepted. A late portion is sent once more, and the first answer counts. Both are safe because
scoring is pure. One failing node can take down two replicas, so there are three attempts.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from serve_app.dispatch.lateness import Lateness
from serve_app.domain.clock import Clock
from serve_app.domain.errors import ReplicaLost
from serve_app.domain.model import Portion, PortionScores
from serve_app.domain.units import Instant, Tokens
from serve_app.ports import PortionScorer
from serve_app.telemetry.metrics import PORTION_HEDGES, PORTION_RETRIES, Metrics

ATTEMPTS_MAX = 3

Attempt = asyncio.Task[tuple[PortionScores, float]]
"""The scores, and the time since the portion was sent."""


class Attempts:
    """Sends portions to one model's replicas."""

    def __init__(
        self,
        scorer: PortionScorer,
        portion_tokens_max: Tokens,
        backlog_tokens: Callable[[], Tokens],
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._scorer = scorer
        self._backlog_tokens = backlog_tokens
        self._lateness = Lateness(portion_tokens_max)
        self._metrics = metrics
        self._clock = clock
        self._overtaken: set[Attempt] = set()

    async def first_answer(self, portion: Portion, deadline: Instant) -> PortionScores:
        """Raises: the failure of the last attempt, or the first one that is not ReplicaLost."""
        running = {self._send(portion, deadline)}
        sent = 1
        try:
            while True:
                late_s = self._lateness.late_s if sent < ATTEMPTS_MAX else None
                done, running = await asyncio.wait(
                    running, timeout=late_s, return_when=asyncio.FIRST_COMPLETED
                )
                for attempt in done:
                    with suppress(ReplicaLost):
                        scores, seconds = attempt.result()
                        self._lateness.answered(portion.tokens, seconds)
                        self._leave(running)
                        return scores
                if done and not running and sent == ATTEMPTS_MAX:
                    done.pop().result()  # Raises ReplicaLost.
                if self._must_send(portion, lost=bool(done), others=bool(running)):
                    running.add(self._send(portion, deadline))
                    sent += 1
        except BaseException:
            for attempt in running:
                attempt.cancel()
            raise

    def _must_send(self, portion: Portion, *, lost: bool, others: bool) -> bool:
        if lost:
            if not others:
                self._metrics.record(PORTION_RETRIES)
            return not others
        if not self._lateness.may_send_again(portion.tokens):
            return False
        self._metrics.record(PORTION_HEDGES)
        return True

    def _send(self, portion: Portion, deadline: Instant) -> Attempt:
        return asyncio.create_task(self._attempt(portion, deadline))

    async def _attempt(self, portion: Portion, deadline: Instant) -> tuple[PortionScores, float]:
        sent_at = self._clock.instant()
        scores = await self._scorer.score(portion, deadline, self._backlog_tokens())
        return scores, self._clock.instant() - sent_at

    def _leave(self, running: set[Attempt]) -> None:
        """Let attempts that were overtaken run until their deadline.

        If they were cancelled, the router would prefer their replica, as if it were idle.
        """
        self._overtaken |= running
        for attempt in running:
            attempt.add_done_callback(self._forget)

    def _forget(self, attempt: Attempt) -> None:
        self._overtaken.discard(attempt)
        if not attempt.cancelled():
            attempt.exception()  # Keeps asyncio from logging it.
