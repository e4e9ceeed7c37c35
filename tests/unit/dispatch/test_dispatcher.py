"""The dispatcher joins logits in request order, survives dead replicas and schedules fairly."""

import asyncio
import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from serve_app.dispatch.dispatcher import Dispatcher
from serve_app.dispatch.portions import cut
from serve_app.domain.errors import EngineFailure, NoReplica, ReplicaLost, RerankError
from serve_app.domain.model import Caller, JobScores, Portion, PortionScores, ServiceTier
from serve_app.domain.tokenized import TokenizedJob
from serve_app.domain.units import Instant, KeyId, RequestId, Revision, Seconds, TenantId, Tokens
from serve_app.telemetry.traces import Traces
from tests.support.fakes import (
    CALLER,
    EMBEDDED,
    FakeClock,
    FakePortionScorer,
    RecordingSink,
    a_job,
    a_pair,
    no_report,
    some_metrics,
)
from tests.support.traces import RecordingCollector

TOKENIZED = TokenizedJob.of([a_pair(index, 3 + 7 * index % 5) for index in range(40)])


def by_first_token(portion: Portion) -> list[float]:
    """Return logits by index: every token id of a fake pair is its document's index plus one."""
    logits, offset = [], 0
    for length in portion.lengths:
        token = int.from_bytes(portion.input_ids[4 * offset : 4 * offset + 4], "little")
        logits.append(token - 1.0)
        offset += length
    return logits


def a_dispatcher(
    scorer: FakePortionScorer,
    sink: RecordingSink | None = None,
    clock: FakeClock | None = None,
) -> Dispatcher:
    """Return a dispatcher with portions of at most 20 tokens."""
    clock = clock or FakeClock()
    return Dispatcher(EMBEDDED, Revision("v1"), scorer, Tokens(20), some_metrics(sink), clock)


def dispatch(scorer: FakePortionScorer, sink: RecordingSink | None = None) -> JobScores:
    return asyncio.run(a_dispatcher(scorer, sink).score(CALLER, a_job(), TOKENIZED, no_report))


def test_logits_come_back_in_request_order_from_many_portions() -> None:
    scorer = FakePortionScorer(by_first_token)

    scores = dispatch(scorer)

    assert scores.logits == tuple(float(index) for index in range(40))
    assert len(scorer.attempts) > 5


def test_a_portion_whose_replica_dies_is_sent_again() -> None:
    lost: list[Portion] = []

    def die_once(portion: Portion) -> Sequence[float]:
        if not lost:
            lost.append(portion)
            raise ReplicaLost("killed")
        return by_first_token(portion)

    sink = RecordingSink()
    scorer = FakePortionScorer(die_once)

    scores = dispatch(scorer, sink)

    assert scores.logits == tuple(float(index) for index in range(40))
    assert scorer.attempts.count(lost[0]) == 2
    assert len(sink.values["rerank_portion_retries"]) == 1


def test_a_third_death_of_the_same_portion_fails_the_job() -> None:
    def always_die(_: Portion) -> Sequence[float]:
        raise ReplicaLost("killed")

    scorer = FakePortionScorer(always_die)

    with pytest.raises(ReplicaLost):
        dispatch(scorer)

    assert all(scorer.attempts.count(portion) <= 3 for portion in scorer.attempts)


def test_a_failure_of_the_model_is_not_tried_again() -> None:
    def fail(_: Portion) -> Sequence[float]:
        raise EngineFailure("poison")

    scorer = FakePortionScorer(fail)

    with pytest.raises(EngineFailure):
        dispatch(scorer)

    assert len(set(scorer.attempts)) == len(scorer.attempts)


def test_too_few_logits_are_an_engine_failure() -> None:
    with pytest.raises(EngineFailure):
        dispatch(FakePortionScorer(lambda portion: by_first_token(portion)[1:]))


class HeldScorer(FakePortionScorer):
    """Holds each portion until the test releases it; portions go to the replicas in rotation."""

    def __init__(self, replicas: int = 1) -> None:
        super().__init__(by_first_token)
        self._replicas = itertools.cycle(range(replicas))
        self.running: list[tuple[Portion, asyncio.Future[None]]] = []
        self.cancelled: list[Portion] = []

    async def score(
        self, portion: Portion, deadline: Instant, backlog_tokens: Tokens
    ) -> PortionScores:
        held = asyncio.get_running_loop().create_future()
        self.running.append((portion, held))
        try:
            await held
        except asyncio.CancelledError:
            self.cancelled.append(portion)
            raise
        finally:
            self.running.remove((portion, held))
        scores = await super().score(portion, deadline, backlog_tokens)
        name = f"r{next(self._replicas)}"
        # As long as the portion before it runs.
        return replace(scores, replica_id=name, queue_wait_s=Seconds(0.1), run_s=Seconds(0.1))

    async def answer_next(self) -> None:
        self.running[0][1].set_result(None)
        await settle()

    def at(self, job: str) -> int:
        return sum(portion.request_id == job for portion, _ in self.running)


async def settle() -> None:
    """Let the event loop run until no task can continue."""
    for _ in range(10):
        await asyncio.sleep(0)


class Dispatching:
    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self.tasks: dict[str, asyncio.Task[JobScores]] = {}

    async def start(
        self,
        name: str,
        documents: int,
        *,
        tenant: str = "acme",
        tier: ServiceTier = ServiceTier.DEFAULT,
    ) -> None:
        self.begin(name, documents, tenant, tier)
        await settle()

    def begin(self, name: str, documents: int, tenant: str, tier: ServiceTier) -> None:
        """Start a job with documents of 20 tokens, so that each one is a portion."""
        caller = Caller(TenantId(tenant), KeyId("k"), frozenset({"rerank"}), None)
        job = replace(a_job(), request_id=RequestId(name), service_tier=tier)
        tokenized = TokenizedJob.of([a_pair(index, 20) for index in range(documents)])
        score = self._dispatcher.score(caller, job, tokenized, no_report)
        self.tasks[name] = asyncio.create_task(score)

    async def disconnect(self, name: str) -> None:
        self.tasks[name].cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.tasks[name]
        await settle()


def test_about_two_portions_are_with_a_replica_and_the_rest_wait() -> None:
    async def scenario() -> None:
        scorer, sink = HeldScorer(), RecordingSink()
        dispatcher = a_dispatcher(scorer, sink)
        jobs = Dispatching(dispatcher)
        await jobs.start("large", 50)

        assert scorer.at("large") == 2
        assert dispatcher.backlog_tokens == 48 * 20
        backlog, labels = sink.values["rerank_backlog_tokens"][-1]
        assert (backlog, labels) == (48 * 20, {"model": "embedded", "revision": "v1"})

        while scorer.at("large"):
            assert scorer.at("large") <= 2
            await scorer.answer_next()
        scores = await jobs.tasks["large"]
        assert scores.logits == tuple(float(index) for index in range(50))
        assert sink.values["rerank_backlog_tokens"][-1][0] == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("tenant", ["acme", "another"])
def test_a_small_job_is_sent_before_the_rest_of_a_large_one(tenant: str) -> None:
    async def scenario() -> None:
        scorer = HeldScorer()
        jobs = Dispatching(a_dispatcher(scorer))
        await jobs.start("large", 1_000)
        await jobs.start("small", 1, tenant=tenant)
        assert scorer.at("small") == 0

        await scorer.answer_next()

        assert scorer.at("small") == 1
        await jobs.disconnect("large")

    asyncio.run(scenario())


def test_a_higher_tier_is_sent_first() -> None:
    async def scenario() -> None:
        scorer = HeldScorer()
        jobs = Dispatching(a_dispatcher(scorer))
        await jobs.start("running", 2)
        await jobs.start("flex", 1, tier=ServiceTier.FLEX)
        await jobs.start("default", 1)
        await jobs.start("priority", 1, tier=ServiceTier.PRIORITY)

        order: list[str] = []
        while scorer.running:
            await scorer.answer_next()
            order += [
                name for name in jobs.tasks if scorer.at(name) and name not in ["running", *order]
            ]
        assert order == ["priority", "default", "flex"]

    asyncio.run(scenario())


def test_a_disconnect_cancels_running_portions_and_drops_queued_ones() -> None:
    async def scenario() -> None:
        scorer = HeldScorer()
        dispatcher = a_dispatcher(scorer)
        jobs = Dispatching(dispatcher)
        await jobs.start("leaves", 50)
        await jobs.start("stays", 3)

        await jobs.disconnect("leaves")

        assert len(scorer.cancelled) == 2
        assert (scorer.at("leaves"), scorer.at("stays")) == (0, 2)
        assert dispatcher.backlog_tokens == 20

    asyncio.run(scenario())


def test_the_queue_wait_includes_the_time_in_the_gateway() -> None:
    async def scenario() -> None:
        scorer, clock = HeldScorer(), FakeClock()
        jobs = Dispatching(a_dispatcher(scorer, clock=clock))
        await jobs.start("before", 2)
        await jobs.start("waits", 1)

        clock.advance(7)
        while scorer.running:
            await scorer.answer_next()

        assert (await jobs.tasks["before"]).queue_wait_s == pytest.approx(0.1)
        assert (await jobs.tasks["waits"]).queue_wait_s == pytest.approx(7.1)

    asyncio.run(scenario())


def test_a_model_without_replicas_starts_with_a_new_window() -> None:
    """Measurements of replicas that are gone do not apply to new ones."""

    async def scenario() -> None:
        scorer = HeldScorer(replicas=3)
        jobs = Dispatching(a_dispatcher(scorer))
        await jobs.start("large", 20)
        for _ in range(3):
            await scorer.answer_next()
        assert scorer.at("large") == 7
        scorer.running[0][1].set_exception(NoReplica("scaled to zero"))
        with pytest.raises(NoReplica):
            await jobs.tasks["large"]

        await jobs.start("next", 10)
        assert scorer.at("next") == 2
        await jobs.disconnect("next")

    asyncio.run(scenario())


def mishaps(chance: random.Random) -> Callable[[Portion], Sequence[float]]:
    def answer(portion: Portion) -> Sequence[float]:
        failures = [ReplicaLost("killed")] * 5 + [EngineFailure("poison"), NoReplica("gone")]
        if chance.random() < 0.08:
            raise chance.choice(failures)
        return by_first_token(portion)

    return answer


@pytest.mark.parametrize("seed", range(20))
def test_random_failures_and_cancellations_leave_nothing_behind(seed: int) -> None:
    chance = random.Random(seed)

    async def scenario() -> None:
        dispatcher = a_dispatcher(FakePortionScorer(mishaps(chance)))
        jobs = Dispatching(dispatcher)
        for number in range(60):
            tenant, tier = chance.choice("abc"), chance.choice(list(ServiceTier))
            jobs.begin(f"job-{number}", chance.randint(1, 12), tenant, tier)
            for _ in range(chance.randint(0, 3)):
                await asyncio.sleep(0)
            if chance.random() < 0.3:
                chance.choice(list(jobs.tasks.values())[-3:]).cancel()
        async with asyncio.timeout(30):
            outcomes = await asyncio.gather(*jobs.tasks.values(), return_exceptions=True)

        assert {type(each) for each in outcomes} >= {JobScores, asyncio.CancelledError}
        for each in outcomes:
            assert isinstance(each, JobScores | RerankError | asyncio.CancelledError)
        assert dispatcher.backlog_tokens == 0
        assert dispatcher._queue.inflight_tokens == 0

    asyncio.run(scenario())


def test_a_job_cancelled_before_its_first_step_gives_its_room_back() -> None:
    async def scenario() -> None:
        dispatcher = a_dispatcher(HeldScorer())
        score = asyncio.create_task(dispatcher.score(CALLER, a_job(), TOKENIZED, no_report))
        await asyncio.sleep(0)  # The job is queued; the tasks of its portions have not started.
        score.cancel()
        with pytest.raises(asyncio.CancelledError):
            await score

        assert dispatcher.backlog_tokens == 0
        assert dispatcher._queue.inflight_tokens == 0

    asyncio.run(scenario())


def test_each_portion_of_a_traced_job_has_a_span_for_its_time_in_the_queue() -> None:
    collector, clock = RecordingCollector(), FakeClock()
    traces = Traces(collector, clock)

    async def request() -> None:
        trace = traces.begin({}, clock.instant())
        assert trace is not None
        dispatcher = a_dispatcher(FakePortionScorer(by_first_token), clock=clock)
        await dispatcher.score(CALLER, a_job(), TOKENIZED, no_report)
        traces.end(trace, {}, failed=False)

    asyncio.run(request())

    portions = len(cut(RequestId("r1"), TOKENIZED, Tokens(20)))
    assert [each.name for each in collector.spans] == ["rerank", *["queue"] * portions]
