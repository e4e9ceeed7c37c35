"""One request through the pipeline, with every port faked."""

import asyncio
import gc
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace
from threading import Event

import pytest

from serve_app.admission.door import Admission
from serve_app.admission.estimate import SMALL_TOKENS_MAX
from serve_app.admission.gate import SharedGate
from serve_app.domain.errors import (
    DeadlineExceeded,
    EngineFailure,
    Forbidden,
    InvalidRequest,
    LedgerUnavailable,
    NotFound,
    OutOfCredit,
    Overloaded,
    RerankError,
)
from serve_app.domain.job import Idempotency, Job
from serve_app.domain.model import Caller, JobScores, Outcome, RateLimitState, ServiceTier
from serve_app.domain.model_card import Prices, Tariff
from serve_app.domain.tokenized import TokenizedJob, Window
from serve_app.domain.units import (
    Credits,
    Instant,
    KeyId,
    ModelId,
    RequestId,
    Revision,
    Seconds,
    TenantId,
    Tokens,
)
from serve_app.engine.tokenizer_threads import (
    QUERY_CHARACTERS_SHORT,
    ThreadedTokenizer,
)
from serve_app.ledger.money.pricing import PriceList
from serve_app.pipeline import Pipeline
from serve_app.ports import JobScorer, PortionReport, Quote, Reserved, StoredOutcome, Usage
from serve_app.served_model import ServedModel, ServedRevision
from tests.support.fakes import (
    CALLER,
    EMBEDDED,
    FailingJobScorer,
    FakeClock,
    FakeLedger,
    FakeTokenizer,
    FixedJobScorer,
    HangingJobScorer,
    UntouchedJobScorer,
    a_job,
    a_pair,
    some_metrics,
)

PRICE = 8
JOB = a_job(top_n=2)


class FixedPricing:
    def price(self, model: ModelId, usage: Usage, tier: ServiceTier) -> Credits:
        return Credits(PRICE * usage.documents)


def pipeline(
    ledger: FakeLedger,
    scorer: JobScorer,
    gate: SharedGate | None = None,
    tokenizer: FakeTokenizer | None = None,
) -> Pipeline:
    served = revision(scorer, gate, tokenizer)
    return with_model(ledger, ServedModel(served))


def revision(
    scorer: JobScorer,
    gate: SharedGate | None = None,
    tokenizer: FakeTokenizer | None = None,
    name: str = "live",
) -> ServedRevision:
    clock, metrics = FakeClock(), some_metrics()
    tokenizer = tokenizer or FakeTokenizer()
    gate = gate or SharedGate(10**9)
    threads = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
    return ServedRevision(
        Revision(name),
        Admission(gate, tokenizer.pair_tokens_max, metrics, clock),
        ThreadedTokenizer(tokenizer, tokenizer, *threads),
        scorer,
    )


def with_model(ledger: FakeLedger, model: ServedModel) -> Pipeline:
    return Pipeline(
        ledger=ledger,
        pricing=FixedPricing(),
        models={EMBEDDED: model},
        metrics=some_metrics(),
        clock=FakeClock(),
    )


def rerank(
    ledger: FakeLedger, scorer: JobScorer, job: Job = JOB, caller: Caller = CALLER
) -> Outcome:
    return asyncio.run(pipeline(ledger, scorer).rerank(caller, job))


def test_the_answer_is_ordered_and_its_charge_is_committed() -> None:
    ledger = FakeLedger(available=100)

    outcome = rerank(ledger, FixedJobScorer(0.1, 0.9, 0.5))

    assert [result.index for result in outcome.results] == [1, 2]
    assert outcome.documents == 3
    assert outcome.tokens == 10  # The query has two words, the documents have 1 + 2 + 1.
    assert ledger.charged == {RequestId("r1"): outcome.charge} == {"r1": 3 * PRICE}
    assert ledger.log == ["reserve", "commit"]


def test_the_price_of_the_most_tokens_is_reserved_and_the_exact_price_is_charged() -> None:
    ledger = FakeLedger(available=1_000)
    tariff = Tariff(Prices(PRICE, 0, 0), Prices(200_000, 0, 0))
    tokens_max = FakeTokenizer.pair_tokens_max * len(JOB.pairs)

    door = replace(
        pipeline(ledger, FixedJobScorer(0.1, 0.9, 0.5)), pricing=PriceList({EMBEDDED: tariff})
    )
    outcome = asyncio.run(door.rerank(CALLER, JOB))

    assert outcome.charge == 3 * PRICE + 2  # Two micro-dollars for ten tokens.
    assert ledger.charged == {"r1": outcome.charge}
    assert ledger.available == 1_000 - outcome.charge, "the rest of the reservation is released"

    ledger.available = 3 * PRICE + tokens_max // 5
    with pytest.raises(OutOfCredit) as refused:
        asyncio.run(door.rerank(CALLER, JOB))
    assert refused.value.needed == 3 * PRICE + -(-tokens_max // 5)


def test_a_request_without_credit_is_refused_before_scoring() -> None:
    scorer = HangingJobScorer()

    with pytest.raises(OutOfCredit):
        rerank(FakeLedger(available=3 * PRICE - 1), scorer)

    assert not scorer.entered.is_set()


class WatchedTokenizer(FakeTokenizer):
    """Sets an event when called, and may fail."""

    def __init__(self, error: Exception | None = None) -> None:
        self.asked = Event()
        self._error = error

    def tokenize(self, job: Job) -> TokenizedJob:
        self.asked.set()
        if self._error is not None:
            raise self._error
        return super().tokenize(job)


class PatientLedger(FakeLedger):
    """Makes a reservation only once the tokenizer has been called."""

    def __init__(self, available: int, tokenizer: WatchedTokenizer) -> None:
        super().__init__(available)
        self._tokenizer = tokenizer

    async def reserve(self, caller: Caller, quote: Quote) -> Reserved:
        assert await asyncio.to_thread(self._tokenizer.asked.wait, 5)
        return await super().reserve(caller, quote)


def test_a_job_is_tokenized_while_its_credit_is_reserved() -> None:
    tokenizer = WatchedTokenizer()
    ledger = PatientLedger(100, tokenizer)

    asyncio.run(pipeline(ledger, FixedJobScorer(1, 2, 3), tokenizer=tokenizer).rerank(CALLER, JOB))

    assert ledger.log == ["reserve", "commit"]


class ParticularTokenizer(FakeTokenizer):
    def check_queries(self, job: Job) -> Usage:
        raise InvalidRequest("query", "is not accepted")


@pytest.mark.parametrize("query", ["short", "long " * QUERY_CHARACTERS_SHORT])
def test_an_invalid_query_is_refused_before_the_reservation(query: str) -> None:
    ledger = FakeLedger(100)
    door = pipeline(ledger, UntouchedJobScorer(), tokenizer=ParticularTokenizer())

    with pytest.raises(InvalidRequest, match="not accepted"):
        asyncio.run(door.rerank(CALLER, a_job(query=query)))

    assert ledger.log == []


class EvenJobScorer:
    async def score(
        self, caller: Caller, job: Job, tokenized: TokenizedJob, report: PortionReport
    ) -> JobScores:
        return await FixedJobScorer(*[1.0] * len(job.pairs)).score(caller, job, tokenized, report)


class TokenizerWithALargeJob(FakeTokenizer):
    """Finishes a large job only after a small one."""

    def __init__(self) -> None:
        self.large, self.small = Event(), Event()

    def tokenize(self, job: Job) -> TokenizedJob:
        if len(job.pairs) == len(JOB.pairs):
            tokenized = super().tokenize(job)
            self.small.set()
            return tokenized
        self.large.set()
        assert self.small.wait(30)
        return super().tokenize(job)


def test_a_small_job_does_not_wait_for_the_tokenization_of_a_large_one() -> None:
    """This holds for any number of large jobs of any tenant."""
    tokenizer = TokenizerWithALargeJob()
    large = a_job(documents=("x" * 4 * SMALL_TOKENS_MAX,) * 20)

    async def both() -> None:
        door = pipeline(FakeLedger(10**9), EvenJobScorer(), tokenizer=tokenizer)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(door.rerank(CALLER, replace(large, request_id=RequestId("large"))))
            await asyncio.to_thread(tokenizer.large.wait, 5)
            tasks.create_task(door.rerank(CALLER, JOB))

    asyncio.run(both())


def test_a_refused_reservation_hides_a_tokenizer_error() -> None:
    """The hidden error is not logged by asyncio either."""
    tokenizer = WatchedTokenizer(EngineFailure("not a text"))
    stray: list[object] = []

    async def refused() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: stray.append(context))
        ledger = PatientLedger(0, tokenizer)
        with pytest.raises(OutOfCredit):
            await pipeline(ledger, UntouchedJobScorer(), tokenizer=tokenizer).rerank(CALLER, JOB)

    asyncio.run(refused())
    gc.collect()

    assert not stray


def test_a_gate_filled_by_one_tenant_admits_others() -> None:
    gate = SharedGate(1_000)
    door = pipeline(FakeLedger(available=100), FixedJobScorer(1, 2, 3), gate)

    with ExitStack() as held:
        with suppress(Overloaded):
            while True:
                held.enter_context(gate.admit(TenantId("flood"), 10))

        assert asyncio.run(door.rerank(CALLER, JOB)).documents == 3


def test_a_request_the_gate_refuses_costs_nothing() -> None:
    ledger = FakeLedger(available=100)
    gate = SharedGate(1)
    busy = pipeline(ledger, UntouchedJobScorer(), gate)

    with gate.admit(CALLER.tenant, 1), pytest.raises(Overloaded):
        asyncio.run(busy.rerank(CALLER, JOB))

    assert ledger.log == [], "a refusal writes nothing"


@pytest.mark.parametrize(
    "scorer",
    [FixedJobScorer(0.1, float("nan"), 0.5), FailingJobScorer(EngineFailure("broken"))],
    ids=["NaN", "engine failure"],
)
def test_a_failure_to_score_costs_nothing(scorer: JobScorer) -> None:
    ledger = FakeLedger(available=100)

    with pytest.raises(EngineFailure):
        rerank(ledger, scorer)

    assert ledger.available == 100
    assert not ledger.charged


def test_a_disconnect_releases_the_credit_and_the_place() -> None:
    ledger, gate = FakeLedger(available=100), SharedGate(10_000)

    async def disconnect() -> None:
        scorer = HangingJobScorer()
        hanging = pipeline(ledger, scorer, gate)
        request = asyncio.create_task(hanging.rerank(CALLER, JOB))
        await scorer.entered.wait()
        assert gate.amount > 0
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request

    asyncio.run(disconnect())

    assert ledger.available == 100
    assert ledger.log == ["reserve", "void 3"], "uncharged work is recorded too"
    assert gate.amount == 0


def test_a_timed_out_request_is_voided_and_names_its_timeout() -> None:
    ledger = FakeLedger(available=100)
    late = replace(JOB, deadline=Instant(1_000.05))

    with pytest.raises(DeadlineExceeded) as exceeded:
        rerank(ledger, HangingJobScorer(), late)

    assert exceeded.value.timeout_s == JOB.timeout_s
    assert ledger.available == 100


@pytest.mark.parametrize(
    ("scorer", "error", "deadline"),
    [
        (FailingJobScorer(EngineFailure("broken")), EngineFailure, JOB.deadline),
        (FailingJobScorer(TimeoutError()), DeadlineExceeded, JOB.deadline),
        (HangingJobScorer(), DeadlineExceeded, Instant(1_000.05)),
    ],
)
def test_a_failure_after_the_reservation_carries_the_rate_limits(
    scorer: JobScorer, error: type[RerankError], deadline: Instant
) -> None:
    ledger = FakeLedger()
    ledger.rate_limits = (RateLimitState("requests", 5, 4, Seconds(9)),)

    with pytest.raises(error) as failure:
        rerank(ledger, scorer, replace(JOB, deadline=deadline))

    assert failure.value.states == ledger.rate_limits


def test_a_repeat_is_answered_without_scoring() -> None:
    ledger = FakeLedger(available=3 * PRICE)
    ledger.rate_limits = (RateLimitState("requests", 5, 4, Seconds(9)),)
    keyed = replace(JOB, idempotency=Idempotency(b"key", b"request"))

    first = rerank(ledger, FixedJobScorer(0.1, 0.9, 0.5), keyed)
    repeat = replace(keyed, request_id=RequestId("r2"))
    second = rerank(ledger, UntouchedJobScorer(), repeat)

    assert second == replace(first, replayed=True)
    assert ledger.charged == {"r1": 3 * PRICE}
    assert ledger.log == ["reserve", "commit", "reserve"]


def test_a_document_that_is_refused_by_its_tokens_voids_the_reservation() -> None:
    """Its tokens are known only after the reservation."""
    tokenizer = WatchedTokenizer(InvalidRequest("documents[1]", "has too many tokens"))
    ledger = PatientLedger(100, tokenizer)
    ledger.rate_limits = (RateLimitState("requests", 5, 4, Seconds(9)),)
    door = pipeline(ledger, UntouchedJobScorer(), tokenizer=tokenizer)

    with pytest.raises(InvalidRequest) as refused:
        asyncio.run(door.rerank(CALLER, JOB))

    assert ledger.log == ["reserve", "void 0"]
    assert ledger.available == 100
    assert refused.value.states == ledger.rate_limits


def test_each_window_is_charged_and_the_best_one_is_the_result() -> None:
    windows = (Window(0, 0, 9), Window(0, 7, 20), Window(0, 18, 25), Window(1, 0, 4))

    class DividingTokenizer(FakeTokenizer):
        def check_queries(self, job: Job) -> Usage:
            return Usage(6, Tokens(600))

        def tokenize(self, job: Job) -> TokenizedJob:
            pairs = (replace(a_pair(i, 5), window=window) for i, window in enumerate(windows))
            return TokenizedJob.of([*pairs])

    ledger = FakeLedger(available=6 * PRICE)
    door = pipeline(ledger, FixedJobScorer(1, 3, 3, 2), tokenizer=DividingTokenizer())

    outcome = asyncio.run(door.rerank(CALLER, a_job(documents=("long", "text"))))

    assert [(each.index, each.logit, each.span) for each in outcome.results] == [
        (0, 3, (7, 20)),
        (1, 2, (0, 4)),
    ]
    assert (outcome.documents, outcome.charge) == (4, 4 * PRICE)
    assert ledger.available == 2 * PRICE


def test_no_answer_is_sent_if_its_charge_cannot_be_written() -> None:
    ledger = FakeLedger(available=100)
    ledger.commit_fails_with = LedgerUnavailable("disk full")

    with pytest.raises(LedgerUnavailable):
        rerank(ledger, FixedJobScorer(1, 2, 3))

    assert ledger.log == ["reserve", "commit", "void 3"]


def test_the_deadline_does_not_interrupt_a_commit() -> None:
    class SlowCommit(FakeLedger):
        async def commit(
            self,
            request_id: RequestId,
            amount: Credits,
            usage: Usage,
            stored: StoredOutcome | None = None,
        ) -> None:
            await asyncio.sleep(0.6)
            await super().commit(request_id, amount, usage, stored)

    ledger = SlowCommit(available=100)

    outcome = rerank(ledger, FixedJobScorer(1, 2, 3), replace(JOB, deadline=Instant(1_000.5)))

    assert ledger.charged == {"r1": outcome.charge}


def test_a_disconnect_after_the_commit_still_returns_the_answer() -> None:
    """If the client disconnects right after the commit, no later step would undo the charge."""

    class CommitOfTheLost(FakeLedger):
        async def commit(
            self,
            request_id: RequestId,
            amount: Credits,
            usage: Usage,
            stored: StoredOutcome | None = None,
        ) -> None:
            await super().commit(request_id, amount, usage, stored)
            request = asyncio.current_task()
            assert request is not None
            asyncio.get_running_loop().call_soon(request.cancel)

    ledger = CommitOfTheLost(available=100)

    outcome = rerank(ledger, FixedJobScorer(1, 2, 3))

    assert ledger.charged == {"r1": outcome.charge}


def test_a_request_after_its_deadline_leaves_no_task_behind() -> None:
    async def too_late() -> set[asyncio.Task[object]]:
        door = pipeline(FakeLedger(available=100), HangingJobScorer())
        with pytest.raises(DeadlineExceeded):
            await door.rerank(CALLER, replace(JOB, deadline=Instant(1_000)))
        return asyncio.all_tasks() - {asyncio.current_task()}

    assert not asyncio.run(too_late())


def test_an_unknown_model_and_a_forbidden_model_have_different_errors() -> None:
    narrow = Caller(TenantId("acme"), KeyId("k"), frozenset({"rerank"}), frozenset())

    with pytest.raises(NotFound):
        rerank(FakeLedger(), UntouchedJobScorer(), replace(JOB, model=ModelId("nope")))
    with pytest.raises(Forbidden):
        rerank(FakeLedger(), UntouchedJobScorer(), caller=narrow)


def test_a_canary_scores_its_share_of_the_tenants_under_the_same_model_and_price() -> None:
    ledger = FakeLedger()
    live = revision(FixedJobScorer(1, 2, 3))
    canary = revision(FixedJobScorer(3, 2, 1), name="canary")
    door = with_model(ledger, ServedModel(live, canary, canary_share=0.5))
    first: set[int] = set()

    for number in range(20):
        caller = replace(CALLER, tenant=TenantId(f"tenant {number}"))
        outcomes = [
            asyncio.run(door.rerank(caller, replace(JOB, request_id=RequestId(f"{number}-{turn}"))))
            for turn in range(3)
        ]
        results = [each.results for each in outcomes]
        assert results == 3 * results[:1], "a tenant keeps its revision"
        assert {(each.model, each.charge) for each in outcomes} == {(EMBEDDED, 3 * PRICE)}
        best = outcomes[0].results[0].index
        assert ledger.revisions[RequestId(f"{number}-0")] == {0: "canary", 2: "live"}[best]
        first.add(best)

    assert first == {0, 2}
