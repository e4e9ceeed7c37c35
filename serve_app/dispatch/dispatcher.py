"""Sends a job's portions to one model's replicas, each in its turn, and joins what comes back.

A portion whose replica dies is sent again: scoring is pure, so that is safe, and Ray itself never
retries a call that a replica had accepted. Three attempts, since a node can take two replicas
along. The first other failure of any portion cancels the rest, since a job is answered whole or not
at all. So does its caller by going away, a deadline included: portions that wait are not sent.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from serve_app.dispatch.fair_queue import Claim
from serve_app.dispatch.forecast import Forecast
from serve_app.dispatch.portions import CutPortion, cut
from serve_app.dispatch.turnstile import Turn, Turnstile
from serve_app.domain.clock import Clock
from serve_app.domain.errors import EngineFailure, NoReplica, ReplicaLost, RerankError
from serve_app.domain.job import Job
from serve_app.domain.model import Caller, JobScores, Portion, PortionScores, TokenizedJob
from serve_app.domain.units import Instant, ModelId, Seconds, Tokens
from serve_app.ports import PortionScorer
from serve_app.telemetry.metrics import BACKLOG_TOKENS, PORTION_RETRIES, Metrics

ATTEMPTS_MAX = 3


class Dispatcher:
    """`serve_app.ports.JobScorer` over one model's replicas."""

    def __init__(
        self,
        model: ModelId,
        scorer: PortionScorer,
        portion_tokens_max: Tokens,
        metrics: Metrics,
        clock: Clock,
        *,
        fair: bool = True,
    ) -> None:
        """Not ``fair``: every portion is sent at once, and Ray queues first come, first served."""
        self.forecast = Forecast(clock, refuses=fair)
        self._scorer = scorer
        self._metrics = metrics
        self._clock = clock
        self._turnstile = Turnstile(
            portion_tokens_max,
            clock,
            lambda tokens: metrics.record(BACKLOG_TOKENS, tokens, model=model),
            fair=fair,
        )

    @property
    def backlog_tokens(self) -> Tokens:
        """Tokens that wait for their turn."""
        return self._turnstile.backlog_tokens

    async def score(self, caller: Caller, job: Job, tokenized: TokenizedJob) -> JobScores:
        """Score every pair of ``job``.

        Raises:
            EngineFailure, NoReplica, Overloaded, DeadlineExceeded: Of the first portion to fail.
        """
        portions = cut(job.request_id, tokenized.pairs, self._turnstile.portion_tokens)
        claim = Claim.of(caller, job)
        costs = [each.portion.tokens for each in portions]
        turns = self._turnstile.enter(job.request_id, claim, costs)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._score_portion(turn, each.portion, job.deadline))
                    for turn, each in zip(turns, portions, strict=True)
                ]
        except BaseExceptionGroup as group_failure:
            # Not `except*`: before Python 3.11.4 what is raised inside it stays in a group.
            failures, bugs = group_failure.split(RerankError)
            if failures is None or bugs is not None:
                raise
            raise _first(failures) from None
        return _join(portions, [task.result() for task in tasks], len(tokenized.pairs))

    async def _score_portion(
        self, turn: Turn, portion: Portion, deadline: Instant
    ) -> PortionScores:
        """The portion's scores; its wait is that for its turn and that at the replica."""
        entered = self._clock.instant()
        try:
            await turn.came
            waited_s = self._clock.instant() - entered
            scores = await self._attempts(turn, portion, deadline)
        finally:
            self._turnstile.leave(turn)
        return replace(scores, queue_wait_s=Seconds(waited_s + scores.queue_wait_s))

    async def _attempts(self, turn: Turn, portion: Portion, deadline: Instant) -> PortionScores:
        for attempt in range(1, ATTEMPTS_MAX + 1):
            sent = self._clock.instant()
            try:
                scores = await self._scorer.score(portion, deadline)
            except ReplicaLost:
                if attempt == ATTEMPTS_MAX:
                    raise
                self._metrics.record(PORTION_RETRIES)
                continue
            except NoReplica:
                self._turnstile.lost_all()
                raise
            if len(scores.logits) != len(portion.lengths):
                raise EngineFailure(
                    f"{len(portion.lengths)} pairs went out, {len(scores.logits)} logits came back"
                )
            self.forecast.scored(portion.request_id, portion.tokens, scores.run_s)
            self._turnstile.answered(turn, scores, Seconds(self._clock.instant() - sent))
            return scores
        raise AssertionError("the last attempt returns or raises")


def _first(failures: BaseExceptionGroup[RerankError]) -> RerankError:
    failure = failures.exceptions[0]
    return _first(failure) if isinstance(failure, BaseExceptionGroup) else failure


def _join(
    portions: Sequence[CutPortion], answers: Sequence[PortionScores], documents: int
) -> JobScores:
    logits = [float("nan")] * documents  # A hole would be refused by `ranking.rank`.
    for each, answer in zip(portions, answers, strict=True):
        for index, logit in zip(each.indices, answer.logits, strict=True):
            logits[index] = logit
    return JobScores(
        logits=tuple(logits),
        queue_wait_s=Seconds(max(answer.queue_wait_s for answer in answers)),
        run_s=Seconds(sum(answer.run_s for answer in answers)),
    )
