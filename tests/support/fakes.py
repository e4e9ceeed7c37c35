"""A fake of each protocol in `serve_app.ports`, and factories of domain objects."""

import asyncio
import struct
from collections.abc import Callable, Sequence
from hashlib import sha256

from serve_app.domain.errors import (
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    OutOfCredit,
    ReservationClosed,
)
from serve_app.domain.job import Job, pairs_of
from serve_app.domain.model import (
    Caller,
    JobScores,
    Outcome,
    Portion,
    PortionScores,
    RankedDocument,
    RateLimitState,
    Truncation,
)
from serve_app.domain.model_card import ReplicaInfo
from serve_app.domain.ranking import rank
from serve_app.domain.tokenized import Pair, TokenizedJob
from serve_app.domain.units import (
    Credits,
    Instant,
    KeyId,
    ModelId,
    Moment,
    RequestId,
    Revision,
    Seconds,
    TenantId,
    Tokens,
)
from serve_app.ledger.money.idempotency import OTHER_REQUEST
from serve_app.ports import PortionReport, Quote, Reserved, StoredOutcome, Usage
from serve_app.telemetry.metrics import Metric, Metrics

EMBEDDED = ModelId("embedded")
CALLER = Caller(TenantId("acme"), KeyId("good"), frozenset({"rerank"}), None)


class FakeClock:
    """A clock that only `advance` moves."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def advance(self, seconds: float) -> None:
        self.now_s += seconds

    def instant(self) -> Instant:
        return Instant(self.now_s)

    def moment(self) -> Moment:
        return Moment(int(self.now_s * 1_000))


class RecordingSink:
    """Records every value by metric name."""

    def __init__(self) -> None:
        self.values: dict[str, list[tuple[float, dict[str, str]]]] = {}

    def record(self, metric: Metric, value: float, labels: dict[str, str]) -> None:
        self.values.setdefault(metric.name, []).append((value, labels))


def some_metrics(sink: RecordingSink | None = None) -> Metrics:
    return Metrics(sink or RecordingSink(), FakeClock())


class FakeLedger:
    """A ledger in memory. ``log`` contains the calls in order."""

    def __init__(self, available: int = 1_000_000) -> None:
        self.available = available
        self.log: list[str] = []
        self.pending: dict[RequestId, Credits] = {}
        self.charged: dict[RequestId, Credits] = {}
        self.revisions: dict[RequestId, Revision] = {}
        self.commit_fails_with: Exception | None = None
        self.rate_limits: tuple[RateLimitState, ...] = ()
        self.key_in_use: str | None = None
        self._tenants: dict[RequestId, TenantId] = {}
        self._answered: dict[tuple[TenantId, bytes], tuple[RequestId, bytes, bytes]] = {}

    async def reserve(self, caller: Caller, quote: Quote) -> Reserved:
        self.log.append("reserve")
        if quote.idempotency is not None:
            key = (caller.tenant, quote.idempotency.key_sha256)
            if self.key_in_use and key[1] == sha256(self.key_in_use.encode()).digest():
                raise IdempotencyKeyInUse(3)
            if key in self._answered:
                request_id, request_sha256, outcome = self._answered[key]
                if request_sha256 != quote.idempotency.request_sha256:
                    raise IdempotencyKeyReused(OTHER_REQUEST)
                return Reserved(self.rate_limits, request_id, outcome)
            self._tenants[quote.request_id] = caller.tenant
        if quote.amount > self.available:
            refusal = OutOfCredit(quote.amount, Credits(self.available))
            refusal.states = self.rate_limits
            raise refusal
        self.available -= quote.amount
        self.pending[quote.request_id] = quote.amount
        self.revisions[quote.request_id] = quote.revision
        return Reserved(self.rate_limits)

    async def commit(
        self,
        request_id: RequestId,
        amount: Credits,
        usage: Usage,
        stored: StoredOutcome | None = None,
    ) -> None:
        self.log.append("commit")
        if self.commit_fails_with is not None:
            raise self.commit_fails_with
        if request_id not in self.pending:
            raise ReservationClosed("voided")
        self.available += self.pending.pop(request_id) - amount
        self.charged[request_id] = amount
        if stored is not None:
            key = (self._tenants[request_id], stored.idempotency.key_sha256)
            sha256 = stored.idempotency.request_sha256
            self._answered[key] = (request_id, sha256, stored.outcome)

    def void(self, request_id: RequestId, usage: Usage) -> None:
        self.log.append(f"void {usage.documents}")
        self.available += self.pending.pop(request_id, 0)


class FakeTokenizer:
    """Turns each word into a token; the query's tokens come first."""

    pair_tokens_max = Tokens(512)

    def check_queries(self, job: Job) -> Usage:
        return Usage(len(job.pairs), Tokens(len(job.pairs) * self.pair_tokens_max))

    def tokenize(self, job: Job) -> TokenizedJob:
        return TokenizedJob.of(
            [
                a_pair(index, len(pair.query.split()) + len(pair.document.split()))
                for index, pair in enumerate(job.pairs)
            ]
        )


class LengthScorer:
    """Scores each document by its length in characters."""

    async def score(
        self, caller: Caller, job: Job, tokenized: TokenizedJob, report: PortionReport
    ) -> JobScores:
        logits = tuple(float(len(pair.document)) for pair in job.pairs)
        return JobScores(logits, Seconds(0.001), Seconds(0.002))


class FixedJobScorer:
    """Returns the given logits for every job."""

    def __init__(self, *logits: float) -> None:
        self._logits = logits

    async def score(
        self, caller: Caller, job: Job, tokenized: TokenizedJob, report: PortionReport
    ) -> JobScores:
        return JobScores(self._logits, Seconds(0.001), Seconds(0.002))


class HangingJobScorer:
    """Never answers. ``entered`` is set when a call begins, ``left`` when it is cancelled."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.left = asyncio.Event()

    async def score(
        self, caller: Caller, job: Job, tokenized: TokenizedJob, report: PortionReport
    ) -> JobScores:
        self.entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.left.set()
        raise AssertionError("unreachable")


class FailingJobScorer:
    """Raises the given error."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def score(
        self, caller: Caller, job: Job, tokenized: TokenizedJob, report: PortionReport
    ) -> JobScores:
        raise self._error


class UntouchedJobScorer:
    """Fails for every job, for tests in which none may reach the model."""

    async def score(
        self, caller: Caller, job: Job, tokenized: TokenizedJob, report: PortionReport
    ) -> JobScores:
        raise AssertionError("scored a request that should have been refused")


class FakePortionScorer:
    """Returns ``answer(portion)``, which may raise. ``attempts`` records the portions."""

    def __init__(self, answer: Callable[[Portion], Sequence[float]]) -> None:
        self._answer = answer
        self.attempts: list[Portion] = []

    async def score(
        self, portion: Portion, deadline: Instant, backlog_tokens: Tokens
    ) -> PortionScores:
        self.attempts.append(portion)
        await asyncio.sleep(0)
        logits = tuple(self._answer(portion))
        return PortionScores(logits, "replica", Seconds(0.001), Seconds(0.002), 0.0)

    async def describe(self) -> ReplicaInfo:
        return ReplicaInfo("replica", "cpu", "float32", "a fake", "sigmoid")


def no_report(tokens: Tokens, run_s: Seconds) -> None:
    """Ignore a scored portion."""


def a_job(
    *,
    query: str = "a query",
    documents: tuple[str, ...] = ("worst", "best one", "middle"),
    top_n: int | None = None,
) -> Job:
    return Job(
        request_id=RequestId("r1"),
        model=EMBEDDED,
        pairs=pairs_of(query, documents),
        top_n=top_n,
        truncation=Truncation.ONLY_DOCUMENT,
        timeout_s=Seconds(30),
        deadline=Instant(1_030),
    )


def a_pair(index: int, tokens: int) -> Pair:
    """Return a pair whose token ids all equal ``index`` plus one."""
    return Pair(index, struct.pack("<i", index + 1) * tokens, Tokens(1), truncated=False)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - threads make it true without an event
            await asyncio.sleep(0.01)


def an_outcome(logits: list[float], top_n: int | None = None) -> Outcome:
    """Return the outcome of a job with these logits."""
    return Outcome(
        request_id=RequestId("rr_1"),
        created_at=Moment(1_764_374_400_500),
        model=ModelId("default"),
        results=tuple(RankedDocument(i, logits[i], truncated=False) for i in rank(logits, top_n)),
        documents=len(logits),
        tokens=Tokens(7),
        charge=Credits(8),
        queue_wait_s=Seconds(0),
        run_s=Seconds(0),
    )
