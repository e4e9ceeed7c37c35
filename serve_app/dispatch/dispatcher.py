"""Send a job's portions to one model's replicas in fair-queue order and join the scores.

Any failure of a portion cancels the rest, because a job is answered completely or not at all. If
the caller is cancelled, queued portions are not sent.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from serve_app.dispatch.attempts import Attempts
from serve_app.dispatch.dispatch_queue import DispatchQueue, QueuePlace
from serve_app.dispatch.portions import CutPortion, cut
from serve_app.domain.clock import Clock
from serve_app.domain.errors import EngineFailure, NoReplica, RerankError
from serve_app.domain.job import Job
from serve_app.domain.model import Caller, JobScores, Portion, PortionScores
from serve_app.domain.priority import Claim
from serve_app.domain.tokenized import TokenizedJob
from serve_app.domain.units import Instant, ModelId, Revision, Seconds, Tokens
from serve_app.ports import PortionReport, PortionScorer
from serve_app.telemetry.metrics import BACKLOG_TOKENS, Metrics
from serve_app.telemetry.traces import add_span


class Dispatcher:
    """`serve_app.ports.JobScorer` over one model's replicas."""

    def __init__(
        self,
        model: ModelId,
        revision: Revision,
        scorer: PortionScorer,
        portion_tokens_max: Tokens,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._clock = clock
        self._queue = DispatchQueue(
            portion_tokens_max,
            clock,
            lambda tokens: metrics.record(BACKLOG_TOKENS, tokens, model=model, revision=revision),
        )
        self._attempts = Attempts(
            scorer, portion_tokens_max, lambda: self.backlog_tokens, metrics, clock
        )

    @property
    def backlog_tokens(self) -> Tokens:
        """Not yet sent to a replica."""
        return self._queue.backlog_tokens

    @property
    def inflight_tokens(self) -> Tokens:
        """Sent to replicas and not yet answered."""
        return self._queue.inflight_tokens

    @property
    def replica_tokens_per_s(self) -> float | None:
        return self._queue.replica_tokens_per_s

    async def score(
        self, caller: Caller, job: Job, tokenized: TokenizedJob, report: PortionReport
    ) -> JobScores:
        """Raises: the first failure of a portion."""
        portions = cut(job.request_id, tokenized, self._queue.portion_tokens)
        costs = [each.tokens for each in portions]
        queued = self._queue.enter(job.request_id, Claim.of(caller, job), costs)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._score_portion(place, each, job.deadline, report))
                    for place, each in zip(queued, portions, strict=True)
                ]
        except BaseExceptionGroup as group_failure:
            # Not `except*`: before Python 3.11.4, an exception raised inside it is put into a
            # group.
            failures, bugs = group_failure.split(RerankError)
            if failures is None or bugs is not None:
                raise
            raise _first(failures) from None
        return _join(portions, [task.result() for task in tasks], len(tokenized.lengths))

    async def _score_portion(
        self, place: QueuePlace, cut_portion: CutPortion, deadline: Instant, report: PortionReport
    ) -> PortionScores:
        """`queue_wait_s` of the result is the wait here plus that at the replica."""
        entered = self._clock.instant()
        try:
            await place.granted
            # Only now, because the spans of all queued portions would leave no room for others.
            add_span("queue", entered)
            waited_s = self._clock.instant() - entered
            scores = await self._answer(place, cut_portion.portion(), deadline)
        finally:
            self._queue.leave(place)
        report(place.tokens, scores.run_s)
        return replace(scores, queue_wait_s=Seconds(waited_s + scores.queue_wait_s))

    async def _answer(
        self, place: QueuePlace, portion: Portion, deadline: Instant
    ) -> PortionScores:
        try:
            scores = await self._attempts.first_answer(portion, deadline)
        except NoReplica:
            self._queue.lost_all()
            raise
        if len(scores.logits) != len(portion.lengths):
            raise EngineFailure(
                f"sent {len(portion.lengths)} pairs, received {len(scores.logits)} logits"
            )
        self._queue.answered(place, scores)
        return scores


def _first(failures: BaseExceptionGroup[RerankError]) -> RerankError:
    failure = failures.exceptions[0]
    return _first(failure) if isinstance(failure, BaseExceptionGroup) else failure


def _join(
    portions: Sequence[CutPortion], answers: Sequence[PortionScores], documents: int
) -> JobScores:
    logits = [float("nan")] * documents  # `ranking.rank` rejects a missing logit.
    for each, answer in zip(portions, answers, strict=True):
        for index, logit in zip(each.indices, answer.logits, strict=True):
            logits[index] = logit
    return JobScores(
        logits=tuple(logits),
        queue_wait_s=Seconds(max(answer.queue_wait_s for answer in answers)),
        run_s=Seconds(sum(answer.run_s for answer in answers)),
    )
