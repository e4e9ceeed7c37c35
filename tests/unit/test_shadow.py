"""Shadows compare a canary with the live revision, and clients notice nothing of them."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import pytest

from serve_app.admission.door import Admission
from serve_app.admission.gate import SharedGate
from serve_app.domain.canary import Comparison, is_chosen
from serve_app.domain.errors import EngineFailure, LedgerUnavailable
from serve_app.domain.job import Job, TextPair
from serve_app.domain.model import Caller, JobScores, Outcome, ServiceTier
from serve_app.domain.tokenized import TokenizedJob
from serve_app.domain.units import (
    Credits,
    ModelId,
    Moment,
    RequestId,
    Revision,
    Seconds,
    TenantId,
    Tokens,
)
from serve_app.engine.tokenizer_threads import ThreadedTokenizer
from serve_app.pipeline import Pipeline
from serve_app.ports import JobScorer, PortionReport
from serve_app.served_model import ServedModel, ServedRevision
from serve_app.shadow import CanaryShadow, Shadows
from serve_app.telemetry.metrics import Metrics
from tests.support.fakes import (
    CALLER,
    EMBEDDED,
    FailingJobScorer,
    FakeClock,
    FakeLedger,
    FakeTokenizer,
    FixedJobScorer,
    HangingJobScorer,
    RecordingSink,
    UntouchedJobScorer,
    a_job,
    until,
)

JOB = a_job(top_n=1)


class Free:
    def price(self, *_: object) -> Credits:
        return Credits(8)


class WatchedScorer(FixedJobScorer):
    """Records the jobs that it scores."""

    def __init__(self, *logits: float) -> None:
        super().__init__(*logits)
        self.jobs: list[Job] = []

    async def score(
        self, caller: Caller, job: Job, tokenized: TokenizedJob, report: PortionReport
    ) -> JobScores:
        self.jobs.append(job)
        return await super().score(caller, job, tokenized, report)


@dataclass
class Scene:
    """A pipeline whose model has a canary that scores shadows only."""

    canary: JobScorer
    live: JobScorer = field(default_factory=lambda: FixedJobScorer(1, 3, 2))
    share: float = 1.0
    backlog: int = 0
    gate: SharedGate = field(default_factory=lambda: SharedGate(10**6))
    ledger: FakeLedger = field(default_factory=FakeLedger)
    stored: list[Comparison] = field(default_factory=list)
    store_fails: bool = False

    def __post_init__(self) -> None:
        self.sink, clock = RecordingSink(), FakeClock()
        metrics = Metrics(self.sink, clock)
        tokenizer = FakeTokenizer()
        threads = ThreadPoolExecutor(1)

        def revision(name: str, scorer: JobScorer) -> ServedRevision:
            return ServedRevision(
                Revision(name),
                Admission(self.gate, tokenizer.pair_tokens_max, metrics, clock),
                ThreadedTokenizer(tokenizer, tokenizer, threads, threads),
                scorer,
            )

        live, canary = revision("live", self.live), revision("canary", self.canary)
        shadow = CanaryShadow(
            live.name,
            canary,
            lambda: Tokens(self.backlog),
            self.share,
            Shadows(self.gate, self._store, metrics, clock),
        )
        model = ServedModel(replace(live, shadow=shadow), canary)
        self.pipeline = Pipeline(
            ledger=self.ledger,
            pricing=Free(),
            models={EMBEDDED: model},
            metrics=metrics,
            clock=clock,
        )

    async def _store(self, comparison: Comparison) -> None:
        if self.store_fails:
            raise LedgerUnavailable("disk full")
        self.stored.append(comparison)

    async def rerank(self, name: str = "r1", job: Job = JOB) -> Outcome:
        return await self.pipeline.rerank(CALLER, replace(job, request_id=RequestId(name)))

    @property
    def results(self) -> list[str]:
        return [labels["result"] for _, labels in self.sink.values.get("rerank_shadows", [])]

    async def ended(self, count: int = 1) -> None:
        await until(lambda: len(self.results) >= count)


def run(test: Callable[[], Awaitable[object]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(10):
            await test()

    asyncio.run(bounded())


def test_a_shadow_is_compared_and_never_charged() -> None:
    canary = WatchedScorer(3, 2, 1)
    scene = Scene(canary)

    async def test() -> None:
        outcome = await scene.rerank()
        await scene.ended()
        assert [each.index for each in outcome.results] == [1], "the live revision answers"

    run(test)
    (found,) = scene.stored
    assert found == Comparison(
        request_id=RequestId("r1"),
        model=ModelId("embedded"),
        live=Revision("live"),
        canary=Revision("canary"),
        compared_at=Moment(1_000_000),
        documents=3,
        overlap_at_10=1,
        kendall_tau=found.kendall_tau,
        live_run_s=Seconds(0.002),
        canary_run_s=Seconds(0.002),
        live_tokens=Tokens(10),
        canary_tokens=Tokens(10),
    )
    # Of 1 > 2 > 0 and 0 > 1 > 2, one pair agrees.
    assert found.kendall_tau == pytest.approx(-1 / 3)
    assert scene.ledger.log == ["reserve", "commit"]
    (job,) = canary.jobs
    assert (job.service_tier, job.idempotency) == (ServiceTier.FLEX, None)


def test_the_answer_does_not_wait_for_its_shadow() -> None:
    scene = Scene(HangingJobScorer())

    async def test() -> None:
        await asyncio.wait_for(scene.rerank(), 5)
        assert scene.ledger.charged == {"r1": 8}
        assert scene.results == []

    run(test)


def test_only_two_shadows_run_at_once_and_the_rest_are_skipped() -> None:
    scene = Scene(HangingJobScorer())

    async def test() -> None:
        for number in range(5):
            await scene.rerank(f"r{number}")
        assert scene.results == ["skipped"] * 3

    run(test)


def test_a_shadow_is_skipped_while_the_canary_has_a_queue() -> None:
    scene = Scene(UntouchedJobScorer(), backlog=1)

    run(scene.rerank)

    assert scene.results == ["skipped"]


def test_a_shadow_is_skipped_while_the_gate_is_more_than_half_full() -> None:
    scene = Scene(UntouchedJobScorer())

    async def test() -> None:
        with scene.gate.admit(TenantId("a"), 250_000), scene.gate.admit(TenantId("b"), 250_000):
            await scene.rerank()

    run(test)
    assert scene.results == ["skipped"]


@pytest.mark.parametrize("failure", [EngineFailure("broken"), ValueError("a text of a client")])
def test_a_failing_canary_is_counted_and_logged_once_and_no_client_sees_it(
    failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    scene = Scene(FailingJobScorer(failure))

    async def test() -> None:
        for number in range(3):
            await scene.rerank(f"r{number}")
            await scene.ended(number + 1)

    with caplog.at_level(logging.WARNING):
        run(test)
    assert scene.results == ["failed"] * 3
    assert [record.message for record in caplog.records] == ["shadow_failed"]
    assert "a text of a client" not in str(vars(caplog.records[0]))
    assert len(scene.ledger.charged) == 3


def test_a_comparison_that_cannot_be_stored_is_counted() -> None:
    scene = Scene(FixedJobScorer(1, 2, 3), store_fails=True)

    async def test() -> None:
        await scene.rerank()
        await scene.ended()

    run(test)
    assert scene.results == ["failed"]


def test_a_share_of_the_requests_is_chosen_whatever_the_tenant() -> None:
    scene = Scene(FixedJobScorer(1, 2, 3), share=0.5)
    names = [f"r{number}" for number in range(60)]
    chosen = sum(is_chosen(0.5, name) for name in names)

    async def test() -> None:
        for name in names:
            await scene.rerank(name)
        await scene.ended(chosen)

    run(test)
    assert 20 <= chosen <= 40
    assert len(scene.results) == chosen


def test_pairs_with_several_queries_are_no_ranking() -> None:
    scene = Scene(UntouchedJobScorer())
    pairs = (TextPair("one", "a"), TextPair("two", "b"), TextPair("three", "c"))

    async def test() -> None:
        await scene.rerank(job=replace(JOB, pairs=pairs))
        await scene.ended()

    run(test)
    assert scene.results == ["skipped"]


def test_a_failed_request_has_no_shadow() -> None:
    scene = Scene(UntouchedJobScorer(), live=FailingJobScorer(EngineFailure("broken")))

    async def test() -> None:
        with pytest.raises(EngineFailure):
            await scene.rerank()

    run(test)
    assert scene.results == []
