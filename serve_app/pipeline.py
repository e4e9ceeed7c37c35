"""The life of one request, a rerank or a score. Read this file first.

    admit ─> check the queries ─> reserve credit ─> tokenize ─> score ─> rank ─> commit ─> answer

Every step is a call on a port (`serve_app.ports`). Every early exit is a `RerankError`. A step sees
the results of earlier steps only through its arguments.

Some steps run concurrently. A small job is tokenized while its credit is being reserved. If its key
has a head start (`serve_app.admission`), it is also scored meanwhile. No score is returned before
the credit is reserved and the charge is committed.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from serve_app.admission.deadline import Forecast
from serve_app.admission.gate import HeadStarts, SharedGate, estimate_tokens, is_small
from serve_app.domain.clock import Clock
from serve_app.domain.errors import DeadlineExceeded, Forbidden, NotFound
from serve_app.domain.job import Job
from serve_app.domain.model import (
    Caller,
    JobScores,
    Outcome,
    RankedDocument,
    RateLimitState,
    TokenizedJob,
)
from serve_app.domain.priority import Claim
from serve_app.domain.ranking import rank
from serve_app.domain.units import ModelId, Seconds, Tokens
from serve_app.ports import JobScorer, Ledger, Pricing, Quote, Tokenizer, Usage
from serve_app.telemetry.metrics import GATE_TOKENS, STAGE_SECONDS, Metrics

NOTHING_COMPUTED = Usage(documents=0, tokens=Tokens(0))
ON_ITS_WAY_S = 0.003
"""Delay before reserving credit when scoring early, so that the ledger thread does not compete for
the GIL while the job is being dispatched. No model answers sooner."""

QUERY_CHARACTERS_SHORT = 500
"""Longest query that is checked on the event loop. It takes 0.1 ms, less than using a thread."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One model as the pipeline uses it."""

    tokenizer: Tokenizer
    scorer: JobScorer
    forecast: Forecast
    """Deadline admission for the work of ``scorer``."""


@dataclass(frozen=True, slots=True)
class TokenizerThreads:
    """Thread pools for tokenizing. Small jobs have their own and never wait for large ones."""

    small: Executor
    large: Executor


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The ports that a request uses; built once per gateway replica."""

    ledger: Ledger
    pricing: Pricing
    gate: SharedGate
    models: Mapping[ModelId, ServedModel]
    tokenizer_threads: TokenizerThreads
    metrics: Metrics
    clock: Clock
    head_starts: HeadStarts = field(default_factory=HeadStarts)

    async def rerank(self, caller: Caller, job: Job) -> Outcome:
        """Score, rank and charge one job of any wire format.

        The answer exists only once its charge is committed. If the request ends before that for any
        reason, including a disconnect of the client, the reserved credit is released.
        """
        model = self._model(caller, job.model)
        tokens = estimate_tokens(job, model.tokenizer.pair_tokens_max)
        try:
            with self._admitted(caller, job, model, tokens):
                async with asyncio.timeout(job.deadline - self.clock.instant()) as deadline:
                    return await self._rerank(caller, job, model, tokens, deadline)
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
        estimate: Tokens,
        deadline: asyncio.Timeout,
    ) -> Outcome:
        await self._check_queries(job, model, estimate)
        amount = self.pricing.price(job.model, len(job.pairs), job.service_tier)
        quote = Quote(job.request_id, job.model, len(job.pairs), amount, job.timeout_s)
        work = _Work()
        async with (
            self._scoring(caller, job, model, estimate, work) as scoring,
            self._credit_reserved(caller, quote, work),
        ):
            tokenized, scores = await scoring
            order = rank(scores.logits, job.top_n)
            # The deadline no longer applies: a charge that may have been written must be answered.
            # The ledger's own timeout limits the wait.
            deadline.reschedule(None)
            with self.metrics.timed(STAGE_SECONDS, stage="commit"):
                await self.ledger.commit(job.request_id, amount, work.usage)
            self.head_starts.earn(caller.key_id, estimate)

        return Outcome(
            request_id=job.request_id,
            model=job.model,
            results=tuple(
                RankedDocument(index, scores.logits[index], tokenized.pairs[index].truncated)
                for index in order
            ),
            documents=work.usage.documents,
            tokens=work.usage.tokens,
            charge=amount,
            queue_wait_s=scores.queue_wait_s,
            run_s=scores.run_s,
            rate_limits=work.rate_limits,
        )

    @asynccontextmanager
    async def _scoring(
        self, caller: Caller, job: Job, model: ServedModel, estimate: Tokens, work: "_Work"
    ) -> AsyncIterator[asyncio.Task[tuple[TokenizedJob, JobScores]]]:
        """Yield the task that tokenizes and scores the job; cancel it after the block.

        A small job is tokenized before ``work.is_reserved``. With a head start, it is also scored.
        """
        small = is_small(job, estimate)
        early = None
        if small and self.head_starts.take(caller.key_id, estimate):
            # Before the reservation starts, so that the two do not compete for the GIL.
            early = await self._tokenize(job, model, estimate, small=small)

        async def score() -> tuple[TokenizedJob, JobScores]:
            if not small:
                await work.is_reserved.wait()
            tokenized = early or await self._tokenize(job, model, estimate, small=small)
            if not early:
                await work.is_reserved.wait()
            work.usage = Usage(len(tokenized.pairs), tokenized.tokens)
            with self.metrics.timed(STAGE_SECONDS, stage="score"):
                return tokenized, await model.scorer.score(caller, job, tokenized)

        task = asyncio.create_task(score())
        task.add_done_callback(_heard)
        try:
            if early:
                await asyncio.sleep(ON_ITS_WAY_S)
            yield task
        finally:
            # Await nothing if the task is done: a charged request must not be cancelled any more.
            if not task.done():
                task.cancel()
                await asyncio.wait({task})

    async def _check_queries(self, job: Job, model: ServedModel, estimate: Tokens) -> None:
        """Refuse an invalid query before the reservation, so that it counts towards no limit.

        The queries of a large job with several queries are checked after the reservation, just
        before tokenization, because the check may take as long as tokenizing them.
        """
        queries = job.queries
        if len(queries) == 1 and len(job.pairs[0].query) <= QUERY_CHARACTERS_SHORT:
            model.tokenizer.check_queries(job)
        elif len(queries) == 1 or is_small(job, estimate):
            threads, loop = self.tokenizer_threads.small, asyncio.get_running_loop()
            await loop.run_in_executor(threads, model.tokenizer.check_queries, job)

    async def _tokenize(
        self, job: Job, model: ServedModel, estimate: Tokens, *, small: bool
    ) -> TokenizedJob:
        with self.metrics.timed(STAGE_SECONDS, stage="tokenize"):
            pools = self.tokenizer_threads
            threads = pools.small if small else pools.large
            loop = asyncio.get_running_loop()
            if not small and len(job.queries) > 1:
                await loop.run_in_executor(threads, model.tokenizer.check_queries, job)
            tokenized = await loop.run_in_executor(threads, model.tokenizer.tokenize, job)
        model.forecast.tokenized(estimate, tokenized.tokens)
        return tokenized

    @contextmanager
    def _admitted(
        self, caller: Caller, job: Job, model: ServedModel, tokens: Tokens
    ) -> Iterator[None]:
        """Hold the job's place. This precedes all durable or slow steps, so refusals are cheap."""
        claim = Claim.of(caller, job)
        try:
            left_s = Seconds(max(0.0, job.deadline - self.clock.instant()))
            place = model.forecast.hold(job.request_id, claim, tokens, left_s)
            with place, self.gate.admit(caller.tenant, tokens):
                self.metrics.record(GATE_TOKENS, self.gate.amount)
                yield
        finally:
            self.metrics.record(GATE_TOKENS, self.gate.amount)

    @asynccontextmanager
    async def _credit_reserved(
        self, caller: Caller, quote: Quote, work: "_Work"
    ) -> AsyncIterator[None]:
        """Reserve credit on entry; void the reservation on any exception.

        The void does nothing if the block has committed the reservation. It also covers a reserve
        that was interrupted: its write may still arrive, but ahead of the void. If the void is lost
        because this process dies, the reservation expires.
        """
        try:
            with self.metrics.timed(STAGE_SECONDS, stage="reserve"):
                work.rate_limits = await self.ledger.reserve(caller, quote)
            work.is_reserved.set()
            yield
        except BaseException:
            self.ledger.void(quote.request_id, work.usage)
            raise


@dataclass(slots=True)
class _Work:
    """State that scoring and reservation share."""

    usage: Usage = NOTHING_COMPUTED
    """Work handed to the model so far; recorded even if it is not charged."""

    rate_limits: tuple[RateLimitState, ...] = ()
    is_reserved: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the credit is reserved."""


def _heard(task: asyncio.Task[Any]) -> None:
    """Mark the exception as retrieved, so that asyncio does not log it for an abandoned task."""
    if not task.cancelled():
        task.exception()
