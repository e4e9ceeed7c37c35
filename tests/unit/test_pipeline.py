"""One request through the pipeline, with every port faked."""

import asyncio
import gc
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace
from threading import Event

import pytest

from serve_app.admission.deadline import Forecast
from serve_app.admission.gate import SMALL_TOKENS_MAX, SharedGate
from serve_app.domain.errors import (
    DeadlineExceeded,
    EngineFailure,
    Forbidden,
    InvalidRequest,
    LedgerUnavailable,
    NotFound,
    OutOfCredit,
    Overloaded,
)
from serve_app.domain.job import Job, TextPair
from serve_app.domain.model import (
    Caller,
    JobScores,
    Outcome,
    RateLimitState,
    ServiceTier,
    TokenizedJob,
)
from serve_app.domain.units import Credits, Instant, KeyId, ModelId, RequestId, TenantId, Tokens
from serve_app.pipeline import QUERY_CHARACTERS_SHORT, Pipeline, ServedModel, TokenizerThreads
from serve_app.ports import JobScorer, Quote, Usage
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
    some_metrics,
)

PRICE = 8
JOB = a_job(top_n=2)


class FixedPricing:
    def price(self, model: ModelId, documents: int, tier: ServiceTier) -> Credits:
        return Credits(PRICE * documents)


def pipeline(
    ledger: FakeLedger,
    scorer: JobScorer,
    gate_tokens_max: int = 10_000,
    tokenizer: FakeTokenizer | None = None,
) -> Pipeline:
    clock = FakeClock()
    return Pipeline(
        ledger=ledger,
        pricing=FixedPricing(),
        gate=SharedGate(gate_tokens_max, clock),
        models={EMBEDDED: ServedModel(tokenizer or FakeTokenizer(), scorer, Forecast(clock))},
        tokenizer_threads=TokenizerThreads(*(ThreadPoolExecutor(1) for _ in range(2))),
        metrics=some_metrics(),
        clock=clock,
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


def test_a_request_it_cannot_pay_for_is_refused_before_any_scoring() -> None:
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

    async def reserve(self, caller: Caller, quote: Quote) -> tuple[RateLimitState, ...]:
        assert await asyncio.to_thread(self._tokenizer.asked.wait, 5)
        return await super().reserve(caller, quote)


def test_a_small_job_is_tokenized_while_its_credit_is_reserved() -> None:
    tokenizer = WatchedTokenizer()
    ledger = PatientLedger(100, tokenizer)

    asyncio.run(pipeline(ledger, FixedJobScorer(1, 2, 3), tokenizer=tokenizer).rerank(CALLER, JOB))

    assert ledger.log == ["reserve", "commit"]


def test_a_large_job_is_tokenized_only_when_it_can_be_paid_for() -> None:
    tokenizer = WatchedTokenizer()
    large = a_job(documents=("x" * 4 * SMALL_TOKENS_MAX,) * 20)
    short_of_credit = pipeline(
        FakeLedger(available=1), UntouchedJobScorer(), 10**9, tokenizer=tokenizer
    )

    with pytest.raises(OutOfCredit):
        asyncio.run(short_of_credit.rerank(CALLER, large))

    assert not tokenizer.asked.is_set()


class ParticularTokenizer(FakeTokenizer):
    def check_queries(self, job: Job) -> None:
        raise InvalidRequest("query", "is not accepted")


@pytest.mark.parametrize("query", ["short", "long " * QUERY_CHARACTERS_SHORT])
def test_a_query_that_cannot_be_used_is_refused_before_anything_is_reserved(query: str) -> None:
    ledger = FakeLedger(100)
    door = pipeline(ledger, UntouchedJobScorer(), 10**9, tokenizer=ParticularTokenizer())

    with pytest.raises(InvalidRequest, match="not accepted"):
        asyncio.run(door.rerank(CALLER, a_job(query=query)))

    assert ledger.log == []


@pytest.mark.parametrize(("words", "log"), [(1, []), (1_000, ["reserve", "void 0"])])
def test_queries_that_take_long_to_check_are_checked_once_they_can_be_paid_for(
    words: int, log: list[str]
) -> None:
    pairs = tuple(TextPair(f"{number} " + "long " * words, "a") for number in range(50))
    ledger = FakeLedger(50 * PRICE)
    door = pipeline(ledger, UntouchedJobScorer(), 10**9, tokenizer=ParticularTokenizer())

    with pytest.raises(InvalidRequest, match="not accepted"):
        asyncio.run(door.rerank(CALLER, replace(JOB, pairs=pairs)))

    assert ledger.log == log
    assert ledger.available == 50 * PRICE


class EvenJobScorer:
    async def score(self, caller: Caller, job: Job, tokenized: TokenizedJob) -> JobScores:
        return await FixedJobScorer(*[1.0] * len(job.pairs)).score(caller, job, tokenized)


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
        assert self.small.wait(5)
        return super().tokenize(job)


def test_a_small_job_is_tokenized_beside_a_large_one() -> None:
    """This holds for any number of large jobs of any tenant."""
    tokenizer = TokenizerWithALargeJob()
    large = a_job(documents=("x" * 4 * SMALL_TOKENS_MAX,) * 20)

    async def both() -> None:
        door = pipeline(FakeLedger(10**9), EvenJobScorer(), 10**9, tokenizer=tokenizer)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(door.rerank(CALLER, replace(large, request_id=RequestId("large"))))
            await asyncio.to_thread(tokenizer.large.wait, 5)
            tasks.create_task(door.rerank(CALLER, JOB))

    asyncio.run(both())


class LedgerBesideScoring(FakeLedger):
    """Makes the second and later reservations only once their jobs are being scored."""

    def __init__(self, available: int, scorer: HangingJobScorer) -> None:
        super().__init__(available)
        self._scorer = scorer

    async def reserve(self, caller: Caller, quote: Quote) -> tuple[RateLimitState, ...]:
        if "reserve" in self.log:
            async with asyncio.timeout(5):
                await self._scorer.entered.wait()
        return await super().reserve(caller, quote)


class ScorerOfFirst(HangingJobScorer):
    """Answers the first job immediately, and no other."""

    async def score(self, caller: Caller, job: Job, tokenized: TokenizedJob) -> JobScores:
        if job.request_id == JOB.request_id:
            return await FixedJobScorer(1, 2, 3).score(caller, job, tokenized)
        return await super().score(caller, job, tokenized)


def test_a_key_that_paid_has_its_next_small_job_scored_while_its_credit_is_reserved() -> None:
    async def two_requests() -> Pipeline:
        scorer = ScorerOfFirst()
        ledger = LedgerBesideScoring(6 * PRICE - 1, scorer)
        door = pipeline(ledger, scorer)
        await door.rerank(CALLER, JOB)
        with pytest.raises(OutOfCredit):
            await door.rerank(CALLER, replace(JOB, request_id=RequestId("r2")))
        assert scorer.left.is_set(), "a refused job is not scored any further"
        assert ledger.charged == {"r1": 3 * PRICE}
        return door

    door = asyncio.run(two_requests())

    assert door.gate.amount == 0


def test_a_key_that_was_refused_has_no_head_start() -> None:
    ledger = FakeLedger(available=3 * PRICE)
    door = pipeline(ledger, FixedJobScorer(1, 2, 3))

    async def requests() -> None:
        await door.rerank(CALLER, JOB)
        with pytest.raises(OutOfCredit):
            await door.rerank(CALLER, JOB)

    asyncio.run(requests())

    assert not door.head_starts.take(CALLER.key_id, Tokens(1))


def test_a_large_job_is_scored_only_when_it_is_paid_for() -> None:
    large = a_job(documents=("x" * 4 * SMALL_TOKENS_MAX,) * 20)
    scorer = HangingJobScorer()
    door = pipeline(FakeLedger(available=1), scorer, 10**9)
    door.head_starts.earn(CALLER.key_id, Tokens(SMALL_TOKENS_MAX))

    with pytest.raises(OutOfCredit):
        asyncio.run(door.rerank(CALLER, large))

    assert not scorer.entered.is_set()
    kept = door.head_starts.take(CALLER.key_id, Tokens(SMALL_TOKENS_MAX))
    assert kept, "the key keeps its allowance"


def test_a_refusal_hides_that_the_text_was_bad_too() -> None:
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


def test_a_gate_that_one_tenant_fills_is_open_to_others() -> None:
    door = pipeline(FakeLedger(available=100), FixedJobScorer(1, 2, 3), gate_tokens_max=1_000)

    with ExitStack() as held:
        with suppress(Overloaded):
            while True:
                held.enter_context(door.gate.admit(TenantId("flood"), 10))

        assert asyncio.run(door.rerank(CALLER, JOB)).documents == 3


def test_a_request_the_gate_refuses_costs_nothing() -> None:
    ledger = FakeLedger(available=100)
    busy = pipeline(ledger, UntouchedJobScorer(), gate_tokens_max=1)

    with busy.gate.admit(CALLER.tenant, 1), pytest.raises(Overloaded):
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


def test_a_client_that_hangs_up_gets_its_credit_and_its_place_back() -> None:
    ledger = FakeLedger(available=100)

    async def hang_up() -> Pipeline:
        scorer = HangingJobScorer()
        hanging = pipeline(ledger, scorer)
        request = asyncio.create_task(hanging.rerank(CALLER, JOB))
        await scorer.entered.wait()
        assert hanging.gate.amount > 0
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        return hanging

    hung_up = asyncio.run(hang_up())

    assert ledger.available == 100
    assert ledger.log == ["reserve", "void 3"], "uncharged work is recorded too"
    assert hung_up.gate.amount == 0


def test_a_request_out_of_time_is_voided_and_says_how_long_it_had() -> None:
    ledger = FakeLedger(available=100)
    late = replace(JOB, deadline=Instant(1_000.05))

    with pytest.raises(DeadlineExceeded) as exceeded:
        rerank(ledger, HangingJobScorer(), late)

    assert exceeded.value.timeout_s == JOB.timeout_s
    assert ledger.available == 100


def test_an_answer_whose_charge_could_not_be_written_does_not_go_out() -> None:
    ledger = FakeLedger(available=100)
    ledger.commit_fails_with = LedgerUnavailable("disk full")

    with pytest.raises(LedgerUnavailable):
        rerank(ledger, FixedJobScorer(1, 2, 3))

    assert ledger.log == ["reserve", "commit", "void 3"]


def test_the_deadline_does_not_cut_a_commit_that_has_begun() -> None:
    class SlowCommit(FakeLedger):
        async def commit(self, request_id: RequestId, amount: Credits, usage: Usage) -> None:
            await asyncio.sleep(0.1)
            await super().commit(request_id, amount, usage)

    ledger = SlowCommit(available=100)

    outcome = rerank(ledger, FixedJobScorer(1, 2, 3), replace(JOB, deadline=Instant(1_000.05)))

    assert ledger.charged == {"r1": outcome.charge}


def test_who_is_charged_is_answered_whatever_comes_after() -> None:
    """If the client disconnects right after the commit, no later step would undo the charge."""

    class CommitOfTheLost(FakeLedger):
        async def commit(self, request_id: RequestId, amount: Credits, usage: Usage) -> None:
            await super().commit(request_id, amount, usage)
            request = asyncio.current_task()
            assert request is not None
            asyncio.get_running_loop().call_soon(request.cancel)

    ledger = CommitOfTheLost(available=100)

    outcome = rerank(ledger, FixedJobScorer(1, 2, 3))

    assert ledger.charged == {"r1": outcome.charge}


@pytest.mark.parametrize("earned", [0, SMALL_TOKENS_MAX])
def test_a_request_that_comes_too_late_leaves_nothing_behind(earned: int) -> None:
    async def too_late() -> set[asyncio.Task[object]]:
        door = pipeline(FakeLedger(available=100), HangingJobScorer())
        door.head_starts.earn(CALLER.key_id, Tokens(earned))
        with pytest.raises(DeadlineExceeded):
            await door.rerank(CALLER, replace(JOB, deadline=Instant(1_000)))
        return asyncio.all_tasks() - {asyncio.current_task()}

    assert not asyncio.run(too_late())


def test_an_unknown_model_and_a_model_off_the_keys_list_are_told_apart() -> None:
    narrow = Caller(TenantId("acme"), KeyId("k"), frozenset({"rerank"}), frozenset())

    with pytest.raises(NotFound):
        rerank(FakeLedger(), UntouchedJobScorer(), replace(JOB, model=ModelId("nope")))
    with pytest.raises(Forbidden):
        rerank(FakeLedger(), UntouchedJobScorer(), caller=narrow)
