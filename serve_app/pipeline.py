"""The life of one request, a rerank or a score. Read this file first.

    admit ─> check the queries ─┬─> reserve credit ─┬─> score ─> rank ─> commit ─> answer
                                └─> tokenize ───────┘

Every step is a call on a port (`serve_app.ports`) or on `Admission`. Every early exit is a
`RerankError`. A step sees the results of earlier steps only through its arguments. No work reaches
a model before its credit is reserved, and no score is returned before the charge is committed.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from serve_app.admission.door import Admission, Ticket
from serve_app.domain.clock import Clock
from serve_app.domain.errors import DeadlineExceeded, Forbidden, NotFound
from serve_app.domain.job import Job
from serve_app.domain.model import Caller, Outcome, RankedDocument, TokenizedJob
from serve_app.domain.ranking import rank
from serve_app.domain.units import ModelId, RequestId, Tokens
from serve_app.ports import JobScorer, JobTokenizer, Ledger, Pricing, Quote, Usage
from serve_app.telemetry.metrics import STAGE_SECONDS, Metrics

NOTHING_COMPUTED = Usage(documents=0, tokens=Tokens(0))


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One model as the pipeline uses it."""

    tokenizer: JobTokenizer
    scorer: JobScorer


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The steps of a request, over the ports that it uses; built once per gateway replica."""

    admission: Admission
    ledger: Ledger
    pricing: Pricing
    models: Mapping[ModelId, ServedModel]
    metrics: Metrics
    clock: Clock

    async def rerank(self, caller: Caller, job: Job) -> Outcome:
        """Score, rank and charge one job of any wire format.

        The answer exists only once its charge is committed. If the request ends before that for any
        reason, including a disconnect of the client, the reserved credit is released.
        """
        model = self._model(caller, job.model)
        try:
            with self.admission.admit(caller, job) as ticket:
                async with asyncio.timeout(job.deadline - self.clock.instant()) as deadline:
                    return await self._rerank(caller, job, model, ticket, deadline)
        except (TimeoutError, DeadlineExceeded):  # Ours, or that of a call that timed out first.
            raise DeadlineExceeded(job.timeout_s) from None

    def _model(self, caller: Caller, model: ModelId) -> ServedModel:
        if model not in self.models:
            raise NotFound(f"model '{model}'; GET /v1/models lists them", "model")
        if caller.models is not None and model not in caller.models:
            raise Forbidden(f"the model '{model}'", "model")
        return self.models[model]

    async def _rerank(
        self,
        caller: Caller,
        job: Job,
        model: ServedModel,
        ticket: Ticket,
        deadline: asyncio.Timeout,
    ) -> Outcome:
        # Before the reservation, so that an invalid query counts towards no limit.
        await model.tokenizer.check_queries(job, small=ticket.small)
        amount = self.pricing.price(job.model, len(job.pairs), job.service_tier)
        quote = Quote(job.request_id, job.model, len(job.pairs), amount, job.timeout_s)

        with self._voided_on_failure(job.request_id, NOTHING_COMPUTED):
            async with self._tokenizing(job, model, ticket) as tokenizing:
                with self.metrics.timed(STAGE_SECONDS, stage="reserve"):
                    rate_limits = await self.ledger.reserve(caller, quote)
                tokenized = await tokenizing
        ticket.tokenized(tokenized.tokens)

        usage = Usage(len(tokenized.pairs), tokenized.tokens)
        with self._voided_on_failure(job.request_id, usage):
            with self.metrics.timed(STAGE_SECONDS, stage="score"):
                scores = await model.scorer.score(caller, job, tokenized, ticket.scored)
            order = rank(scores.logits, job.top_n)
            # The deadline no longer applies: a charge that may have been written must be answered.
            # The ledger's own timeout limits the wait.
            deadline.reschedule(None)
            with self.metrics.timed(STAGE_SECONDS, stage="commit"):
                await self.ledger.commit(job.request_id, amount, usage)

        return Outcome(
            request_id=job.request_id,
            model=job.model,
            results=tuple(
                RankedDocument(index, scores.logits[index], tokenized.pairs[index].truncated)
                for index in order
            ),
            documents=usage.documents,
            tokens=usage.tokens,
            charge=amount,
            queue_wait_s=scores.queue_wait_s,
            run_s=scores.run_s,
            rate_limits=rate_limits,
        )

    @asynccontextmanager
    async def _tokenizing(
        self, job: Job, model: ServedModel, ticket: Ticket
    ) -> AsyncIterator[asyncio.Task[TokenizedJob]]:
        """Tokenize while the block runs; cancel a tokenization that the block did not await."""

        async def tokenize() -> TokenizedJob:
            with self.metrics.timed(STAGE_SECONDS, stage="tokenize"):
                return await model.tokenizer.tokenize(job, small=ticket.small)

        task = asyncio.create_task(tokenize())
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)  # The block's own error matters.

    @contextmanager
    def _voided_on_failure(self, request_id: RequestId, usage: Usage) -> Iterator[None]:
        """Void the reservation if the block fails; ``usage`` is the work computed for nothing.

        The void also covers a reserve that was interrupted: its write may still arrive, but ahead
        of the void. If the void is lost because this process dies, the reservation expires.
        """
        try:
            yield
        except BaseException:
            self.ledger.void(request_id, usage)
            raise
