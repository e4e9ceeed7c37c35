"""Send a job's portions to one model's replicas in fair-queue order and join the scores.

If a portion's replica dies, the portion is sent again. This is safe because scoring is pure; Ray
itself never retries a call that a replica has accepted. Three attempts are made, because one
failing node can take down two replicas. Any other failure of a portion cancels the rest, because a
job is answered completely or not at all. If the caller is cancelled, for example at its deadline,
queued portions are not sent.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from serve_app.admission.deadline import Forecast
from serve_app.dispatch.dispatch_queue import Turn, Turnstile
from serve_app.dispatch.portions import CutPortion, cut
from serve_app.domain.clock import Clock
from serve_app.domain.errors import EngineFailure, NoReplica, ReplicaLost, RerankError
from serve_app.domain.job import Job
from serve_app.domain.model import Caller, JobScores, Portion, PortionScores, TokenizedJob
from serve_app.domain.priority import Claim
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
        """``fair=False`` sends every portion immediately; Ray then serves them in arrival order."""
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
        """Queued tokens that have not been sent to a replica."""
        return self._turnstile.backlog_tokens

    async def score(self, caller: Caller, job: Job, tokenized: TokenizedJob) -> JobScores:
        """Score every pair of ``job``.

        Raises:
            EngineFailure, NoReplica, Overloaded, DeadlineExceeded: The first failure of a portion.
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
            # Not `except*`: before Python 3.11.4 an exception raised inside it stays in a group.
            failures, bugs = group_failure.split(RerankError)
            if failures is None or bugs is not None:
                raise
            raise _first(failures) from None
        return _join(portions, [task.result() for task in tasks], len(tokenized.pairs))

    async def _score_portion(
        self, turn: Turn, portion: Portion, deadline: Instant
    ) -> PortionScores:
        """Return the portion's scores; `queue_wait_s` is the wait here plus that at the replica."""
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
                    f"sent {len(portion.lengths)} pairs, received {len(scores.logits)} logits"
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
    logits = [float("nan")] * documents  # `ranking.rank` would reject a missing logit.
    for each, answer in zip(portions, answers, strict=True):
        for index, logit in zip(each.indices, answer.logits, strict=True):
            logits[index] = logit
    return JobScores(
        logits=tuple(logits),
        queue_wait_s=Seconds(max(answer.queue_wait_s for answer in answers)),
        run_s=Seconds(sum(answer.run_s for answer in answers)),
    )
