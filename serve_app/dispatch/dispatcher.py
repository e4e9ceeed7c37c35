"""Sends a job's portions to one model's replicas and joins what comes back.

A portion whose replica dies is sent again: scoring is pure, so that is safe, and Ray itself never
retries a call that a replica had accepted. Three attempts, since a node can take two replicas
along. The first other failure of any portion cancels the rest, since a job is answered whole or not
at all.
"""

import asyncio
from collections.abc import Sequence

from serve_app.dispatch.portions import CutPortion, cut
from serve_app.domain.errors import EngineFailure, ReplicaLost, RerankError
from serve_app.domain.model import (
    JobScores,
    Portion,
    PortionScores,
    RerankJob,
    TokenizedJob,
)
from serve_app.domain.units import Instant, Seconds, Tokens
from serve_app.ports import PortionScorer
from serve_app.telemetry.metrics import PORTION_RETRIES, Metrics

ATTEMPTS_MAX = 3


class Dispatcher:
    """`serve_app.ports.JobScorer` over one model's replicas."""

    def __init__(self, scorer: PortionScorer, portion_tokens_max: Tokens, metrics: Metrics) -> None:
        self._scorer = scorer
        self._portion_tokens_max = portion_tokens_max
        self._metrics = metrics

    async def score(self, job: RerankJob, tokenized: TokenizedJob) -> JobScores:
        """Score every pair of ``job``.

        Raises:
            EngineFailure, NoReplica, Overloaded, DeadlineExceeded: Of the first portion to fail.
        """
        portions = cut(job.request_id, tokenized.pairs, self._portion_tokens_max)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._score_portion(each.portion, job.deadline))
                    for each in portions
                ]
        except* RerankError as failures:
            raise _first(failures) from None
        return _join(portions, [task.result() for task in tasks], len(tokenized.pairs))

    async def _score_portion(self, portion: Portion, deadline: Instant) -> PortionScores:
        for attempt in range(1, ATTEMPTS_MAX + 1):
            try:
                scores = await self._scorer.score(portion, deadline)
            except ReplicaLost:
                if attempt == ATTEMPTS_MAX:
                    raise
                self._metrics.record(PORTION_RETRIES)
                continue
            if len(scores.logits) != len(portion.lengths):
                raise EngineFailure(
                    f"{len(portion.lengths)} pairs went out, {len(scores.logits)} logits came back"
                )
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
