"""The life of one request, a rerank or a score. Read this file first.

    admit ─> check the queries ─┬─> reserve credit ─┬─> score ─> rank ─> commit ─> answer
                                └─> tokenize ───────┘

No request is scored before its credit is reserved, and no score is returned before the charge is
committed.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from serve_app.admission.door import Ticket
from serve_app.domain.clock import Clock
from serve_app.domain.errors import DeadlineExceeded, Forbidden, NotFound, RerankError
from serve_app.domain.job import Job
from serve_app.domain.model import Caller, Outcome, RateLimitState
from serve_app.domain.ranking import ranked
from serve_app.domain.tokenized import TokenizedJob
from serve_app.domain.units import ModelId, RequestId
from serve_app.ports import NO_USAGE, Ledger, Pricing, Quote, Usage
from serve_app.protocols.stored_outcome import replayed, to_store
from serve_app.served_model import ServedModel, ServedRevision
from serve_app.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Handles the requests of one gateway replica."""

    ledger: Ledger
    pricing: Pricing
    models: Mapping[ModelId, ServedModel]
    metrics: Metrics
    clock: Clock

    async def rerank(self, caller: Caller, job: Job) -> Outcome:
        """Score, rank and charge one job; answer a repeat from the ledger.

        The reserved credit is released if the request ends before its charge is committed.
        """
        revision = self._revision(caller, job.model)
        with revision.admission.admit(caller, job) as ticket:
            return await self._run(caller, job, revision, ticket)

    def _revision(self, caller: Caller, model: ModelId) -> ServedRevision:
        if model not in self.models:
            raise NotFound(f"model '{model}'; GET /v1/models lists them", "model")
        if caller.models is not None and model not in caller.models:
            raise Forbidden(f"the model '{model}'", "model")
        return self.models[model].revision(model, caller.tenant)

    async def _run(
        self, caller: Caller, job: Job, revision: ServedRevision, ticket: Ticket
    ) -> Outcome:
        # Check queries before the reservation, so that an invalid one counts towards no limit.
        async with self._until_deadline(job):
            most = await revision.tokenizer.check_queries(job, small=ticket.small)
        price = self.pricing.price(job.model, most, job.service_tier)
        quote = Quote.of(job, revision.name, price)

        with self._voided_on_failure(job.request_id) as progress:
            async with (
                self._until_deadline(job),
                self._tokenizing(job, revision, ticket) as pending,
            ):
                with self.metrics.stage("reserve"):
                    reserved = await self.ledger.reserve(caller, quote)
                    progress.rate_limits = reserved.rate_limits
                if reserved.outcome is not None:
                    return replayed(reserved.outcome, reserved.rate_limits)
                tokenized = await pending
            usage = progress.usage = Usage(len(tokenized.lengths), tokenized.tokens)
            ticket.tokenized(usage.tokens)
            charge = self.pricing.price(job.model, usage, job.service_tier)
            async with self._until_deadline(job):
                with self.metrics.stage("score"):
                    scores = await revision.scorer.score(caller, job, tokenized, ticket.scored)
            outcome = Outcome(
                request_id=job.request_id,
                created_at=self.clock.moment(),
                model=job.model,
                results=ranked(tokenized, scores.logits, job.top_n),
                documents=usage.documents,
                tokens=usage.tokens,
                charge=charge,
                queue_wait_s=scores.queue_wait_s,
                run_s=scores.run_s,
                rate_limits=reserved.rate_limits,
                warnings=tokenized.warnings,
            )
            # The deadline does not apply to the commit, because a request must not end without an
            # answer while its charge is being written. The ledger limits that wait.
            with self.metrics.stage("commit"):
                await self.ledger.commit(job.request_id, charge, usage, to_store(job, outcome))
        if revision.shadow is not None:
            revision.shadow.offer(caller, job, tokenized, scores)
        return outcome

    @asynccontextmanager
    async def _until_deadline(self, job: Job) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(job.deadline - self.clock.instant()):
                yield
        except (TimeoutError, DeadlineExceeded):  # The timeout above, or an earlier one in a port.
            raise DeadlineExceeded(job.timeout_s) from None

    @asynccontextmanager
    async def _tokenizing(
        self, job: Job, revision: ServedRevision, ticket: Ticket
    ) -> AsyncIterator[asyncio.Task[TokenizedJob]]:
        """Tokenize while the block runs, but not longer."""

        async def tokenize() -> TokenizedJob:
            with self.metrics.stage("tokenize"):
                return await revision.tokenizer.tokenize(job, small=ticket.small)

        task = asyncio.create_task(tokenize())
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)  # Raise only the block's error.

    @contextmanager
    def _voided_on_failure(self, request_id: RequestId) -> Iterator["_Progress"]:
        """Void the reservation if the block fails. The block keeps the yielded object up to date.

        The void is written after the reservation, even if ``reserve`` is interrupted. If this
        process dies first, the reservation expires.
        """
        progress = _Progress()
        try:
            yield progress
        except BaseException as error:
            self.ledger.void(request_id, progress.usage)
            if isinstance(error, RerankError):
                error.states = progress.rate_limits or error.states
            raise


@dataclass(slots=True)
class _Progress:
    """What is known of a request if it fails."""

    usage: Usage = NO_USAGE
    rate_limits: tuple[RateLimitState, ...] = ()
