"""The batcher collects portions while the device is busy; no portion harms another or the loop."""

import asyncio
import gc
import threading
from collections.abc import Callable, Coroutine, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from ray import serve
from ray.serve.batching import _BatchQueue

from serve_app.batching.batch_size import IDLE_WAIT_S, Running
from serve_app.batching.report import BatchReport
from serve_app.deployments.token_batcher import (
    AHEAD_S,
    BUSY_WAIT_S,
    LAST_WORDS_S,
    TokenBatcher,
)
from serve_app.domain.clock import SystemClock
from serve_app.domain.errors import EngineFailure, ReplicaLost
from serve_app.domain.model import Portion
from serve_app.domain.portion_size import TOKENS_MIN
from serve_app.domain.units import RequestId, Tokens
from serve_app.telemetry.traces import NoCollector
from tests.support.fakes import FakeClock, RecordingSink, some_metrics, until

BATCH_TOKENS_MAX = 100
POISON = 13
NAN = 17


class FakeEngine:
    """Scores a pair by its length; ``gate`` holds a batch on the device while it is cleared."""

    device = "cpu"
    precision = "float32"
    description = "a fake"
    activation = "sigmoid"
    pair_tokens_max = 50
    batches_at_once = 1

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = 0
        self.broken = False

    def warm_up(self) -> None:
        pass

    def check(self) -> None:
        if self.broken:
            raise EngineFailure("the device is gone")

    def score(self, portions: Sequence[Portion]) -> list[list[float]]:
        self.entered += 1
        assert self.gate.wait(timeout=30)
        self.batches.append(sum(portion.tokens for portion in portions))
        if any(POISON in portion.lengths for portion in portions):
            raise EngineFailure("poison")
        return [
            [float("nan") if length == NAN else float(length) for length in portion.lengths]
            for portion in portions
        ]


@pytest.fixture(autouse=True)
def _replica_context(monkeypatch: pytest.MonkeyPatch) -> None:
    """`serve.batch` reads one number from its replica; there is no replica here."""
    context = SimpleNamespace(_deployment_config=SimpleNamespace(max_ongoing_requests=1_000))
    monkeypatch.setattr(serve, "get_replica_context", lambda: context)


def never(failure: EngineFailure) -> None:
    raise AssertionError(failure)


def a_portion(*lengths: int) -> Portion:
    return Portion(RequestId("r1"), bytes(4 * sum(lengths)), lengths, tuple(1 for _ in lengths))


def batcher(
    engine: FakeEngine,
    sink: RecordingSink | None = None,
    device_failed: Callable[[EngineFailure], None] = never,
) -> TokenBatcher:
    return TokenBatcher(
        engine,
        "replica-1",
        Tokens(BATCH_TOKENS_MAX),
        a_report(sink),
        SystemClock(),
        device_failed,
    )


def a_report(sink: RecordingSink | None = None) -> BatchReport:
    return BatchReport(some_metrics(sink), NoCollector())


def run(test: Coroutine[Any, Any, None]) -> None:
    """Like `asyncio.run`, but also stops Ray's queues. A queue that is collected later would look
    for an event loop to cancel its task on, and create one that is never closed."""
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(test)
    finally:
        # More than once, because `wait_for` in Python 3.11 may swallow a cancellation.
        while left := asyncio.all_tasks(loop):
            for task in left:
                task.cancel()
            loop.run_until_complete(asyncio.wait(left, timeout=0.05))
        for each in gc.get_objects():
            if type(each) is _BatchQueue:  # `isinstance` calls each object, and some then warn.
                each._handle_batch_task = None
        loop.close()


def test_scores_name_their_replica_and_waiting_time() -> None:
    async def test() -> None:
        scores = await batcher(FakeEngine()).score(a_portion(3, 1, 2))

        assert scores.logits == (3.0, 1.0, 2.0)
        assert scores.replica_id == "replica-1"
        assert scores.queue_wait_s >= 0
        assert scores.tokens_per_s > 0

    run(test())


def test_computed_portions_are_counted() -> None:
    sink = RecordingSink()

    async def test() -> None:
        counting = batcher(FakeEngine(), sink)
        await counting.score(a_portion(50, 30))
        await counting.score(a_portion(7))

    run(test())

    assert [value for value, _ in sink.values["rerank_scored_tokens"]] == [80, 7]


def test_it_reports_the_statistics_that_the_autoscaler_reads() -> None:
    async def test() -> None:
        reporting = batcher(FakeEngine())
        assert reporting.autoscaling_stats() == {"inflight_tokens": 0, "busy_ratio": 0}

        await reporting.score(a_portion(50, 50))

        stats = reporting.autoscaling_stats()
        assert stats.keys() == {"inflight_tokens", "busy_ratio", "tokens_per_s"}
        assert stats["tokens_per_s"] > 0
        assert stats["busy_ratio"] > 0

    run(test())


def test_portions_that_arrive_while_the_device_is_busy_share_batches() -> None:
    """`@serve.batch` alone would put each of the ten into a batch of its own."""

    async def test() -> None:
        engine = FakeEngine()
        busy = batcher(engine)
        engine.gate.clear()
        first = asyncio.create_task(busy.score(a_portion(10)))
        await until(lambda: engine.entered == 1)
        later = []
        for _ in range(10):
            later.append(asyncio.create_task(busy.score(a_portion(10))))
            await asyncio.sleep(2 * IDLE_WAIT_S)
        engine.gate.set()
        await asyncio.gather(first, *later)

        assert engine.batches == [10, 100]

    run(test())


def test_waiting_portions_start_as_soon_as_the_device_is_free() -> None:
    """A wait based on the length of earlier batches would be too long after a long batch."""

    async def test() -> None:
        engine = FakeEngine()
        busy = batcher(engine)
        for _ in range(3):
            engine.gate.clear()
            first = asyncio.create_task(busy.score(a_portion(10)))
            await asyncio.sleep(0.05)
            second = asyncio.create_task(busy.score(a_portion(10)))
            await asyncio.sleep(0.05)
            engine.gate.set()
            async with asyncio.timeout(BUSY_WAIT_S / 2):
                await asyncio.gather(first, second)

        assert engine.batches == [10] * 6

    run(test())


def test_a_small_batch_does_not_start_early_behind_a_full_one() -> None:
    async def test() -> None:
        engine = FakeEngine()
        busy = batcher(engine)
        engine.gate.clear()
        portions = [asyncio.create_task(busy.score(a_portion(50))) for _ in range(1)]
        await until(lambda: engine.entered == 1)
        portions += [asyncio.create_task(busy.score(a_portion(50))) for _ in range(5)]
        await asyncio.sleep(0.05)
        engine.gate.set()
        await asyncio.gather(*portions)

        assert engine.batches == [50, 100, 100, 50]

    run(test())


class SlowEngine(FakeEngine):
    """Scores two thousand tokens a second."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self._clock = clock

    def score(self, portions: Sequence[Portion]) -> list[list[float]]:
        self._clock.advance(sum(portion.tokens for portion in portions) / 2_000)
        return super().score(portions)


def test_a_slow_device_gets_no_more_than_it_scores_in_the_target_time() -> None:
    """Otherwise its callers would wait for one long batch, and then the device for new portions."""

    async def test() -> None:
        clock = FakeClock()
        engine = SlowEngine(clock)
        slow = TokenBatcher(engine, "replica-1", Tokens(8_192), a_report(), clock, never)
        await slow.score(a_portion(*[40] * 10))
        large = [slow.score(a_portion(*[40] * 10)) for _ in range(3)]
        small = [slow.score(a_portion(40)) for _ in range(12)]
        huge = [slow.score(a_portion(*[40] * 50))]
        async with asyncio.timeout(BUSY_WAIT_S / 2):
            await asyncio.gather(*large, *small, *huge)

        # Which portions share a batch depends on the scheduling of the Python version.
        *shared, largest = sorted(engine.batches[1:])
        assert (sum(shared), len(shared), largest) == (3 * 400 + 12 * 40, 4, 2_000)
        assert max(shared) <= TOKENS_MIN

    run(test())


class TwoAtOnce(FakeEngine):
    """Holds each batch until the test ends it."""

    batches_at_once = 2

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[int] = []
        self.ends = [threading.Event() for _ in range(4)]

    def score(self, portions: Sequence[Portion]) -> list[list[float]]:
        end = self.ends[len(self.begun)]
        self.begun.append(sum(portion.tokens for portion in portions))
        assert end.wait(timeout=30)
        return super().score(portions)


def two_at_once(
    engine: TwoAtOnce, clock: FakeClock, device_failed: Callable[[EngineFailure], None] = never
) -> TokenBatcher:
    limit = Tokens(BATCH_TOKENS_MAX)
    return TokenBatcher(engine, "replica-1", limit, a_report(), clock, device_failed)


async def score_fifty(two: TokenBatcher, engine: TwoAtOnce, clock: FakeClock, run_s: float) -> None:
    """Score 50 tokens as the first batch, so that the speed is known."""
    scores = asyncio.create_task(two.score(a_portion(50)))
    await until(lambda: engine.begun == [50])
    clock.advance(run_s)
    engine.ends[0].set()
    await scores


def test_a_full_batch_is_prepared_during_the_first_and_its_run_time_begins_after_it() -> None:
    async def test() -> None:
        clock, engine = FakeClock(), TwoAtOnce()
        two = two_at_once(engine, clock)
        first = asyncio.create_task(two.score(a_portion(10)))
        await until(lambda: engine.begun == [10])
        second = [asyncio.create_task(two.score(a_portion(50)))]
        await asyncio.sleep(0.05)
        assert engine.begun == [10], "it may still be joined by others"
        second.append(asyncio.create_task(two.score(a_portion(50))))
        await until(lambda: engine.begun == [10, 100])

        third = asyncio.create_task(two.score(a_portion(7)))
        clock.advance(2)
        engine.ends[0].set()
        assert (await first).run_s == pytest.approx(2)
        await asyncio.sleep(0.05)
        assert engine.begun == [10, 100], "the second is still computed"
        clock.advance(3)
        engine.ends[1].set()
        for scores in await asyncio.gather(*second):
            assert scores.queue_wait_s == pytest.approx(2)
            assert scores.run_s == pytest.approx(3)
        assert two.autoscaling_stats()["busy_ratio"] == 1
        engine.ends[2].set()
        await third

    run(test())


def test_waiting_portions_are_prepared_shortly_before_the_first_batch_should_end() -> None:
    async def test() -> None:
        clock, engine = FakeClock(), TwoAtOnce()
        two = two_at_once(engine, clock)
        await score_fifty(two, engine, clock, 0.25)  # 200 tokens a second from now on.

        portions = [asyncio.create_task(two.score(a_portion(tokens))) for tokens in (40, 20, 40)]
        await until(lambda: engine.begun == [50, 100])
        portions.append(asyncio.create_task(two.score(a_portion(7))))
        await asyncio.sleep(0.1)
        assert engine.begun == [50, 100], "that would be half a second too early"
        await until(lambda: engine.begun == [50, 100, 7])

        assert not portions[0].done()
        for end in engine.ends:
            end.set()
        await asyncio.gather(*portions)

    run(test())


def test_nothing_is_prepared_behind_a_very_short_batch() -> None:
    """The next batch would hold little."""

    async def test() -> None:
        clock, engine = FakeClock(), TwoAtOnce()
        two = two_at_once(engine, clock)
        await score_fifty(two, engine, clock, 2 * AHEAD_S - 0.001)

        portions = [asyncio.create_task(two.score(a_portion(50)))]
        await until(lambda: engine.begun == [50, 50])
        portions.append(asyncio.create_task(two.score(a_portion(7))))
        await asyncio.sleep(0.05)
        assert engine.begun == [50, 50]

        for end in engine.ends:
            end.set()
        await asyncio.gather(*portions)

    run(test())


def test_a_second_batch_that_ends_first_does_not_shorten_the_first_ones_run_time() -> None:
    async def test() -> None:
        clock, engine = FakeClock(), TwoAtOnce()
        two = two_at_once(engine, clock)
        first = asyncio.create_task(two.score(a_portion(10)))
        await until(lambda: engine.begun == [10])
        second = asyncio.create_task(two.score(a_portion(50, 50)))
        await until(lambda: engine.begun == [10, 100])

        clock.advance(1)
        engine.ends[1].set()
        await second
        clock.advance(1)
        engine.ends[0].set()

        assert (await first).run_s == pytest.approx(2)

    run(test())


@pytest.mark.parametrize(("ends", "of_the_first"), [((0, 1), EngineFailure), ((1, 0), ReplicaLost)])
def test_only_the_first_of_two_batches_can_have_crashed_the_device(
    ends: tuple[int, int], of_the_first: type[Exception]
) -> None:
    async def test() -> None:
        engine, failures = TwoAtOnce(), list[EngineFailure]()
        engine.broken = True
        two = two_at_once(engine, FakeClock(), failures.append)
        first = asyncio.create_task(two.score(a_portion(POISON)))
        await until(lambda: engine.begun == [POISON])
        second = asyncio.create_task(two.score(a_portion(50, 50 - POISON, POISON)))
        await until(lambda: engine.begun == [POISON, 100])

        for end in ends:
            engine.ends[end].set()
            await asyncio.wait([(first, second)[end]])

        assert type(first.exception()) is of_the_first
        assert type(second.exception()) is ReplicaLost
        await until(lambda: bool(failures))

    run(test())


def test_no_batch_is_over_the_limit_and_the_limit_can_change_while_running() -> None:
    async def test() -> None:
        engine = FakeEngine()
        lowered = batcher(engine)
        await asyncio.gather(*(lowered.score(a_portion(30)) for _ in range(20)))
        assert max(engine.batches) == 90

        engine.batches.clear()
        lowered.limit_batches(Tokens(60))
        await asyncio.gather(*(lowered.score(a_portion(30)) for _ in range(20)))
        assert max(engine.batches) == 60

    run(test())


def test_a_collected_batch_starts_even_if_the_limit_was_lowered() -> None:
    async def test() -> None:
        engine = FakeEngine()
        lowered = batcher(engine)
        engine.gate.clear()
        portions = []
        for _ in range(3):  # The first runs, the third makes the second full and is collected.
            portions.append(asyncio.create_task(lowered.score(a_portion(80))))
            await asyncio.sleep(0.05)
        lowered.limit_batches(Tokens(80))
        engine.gate.set()
        async with asyncio.timeout(BUSY_WAIT_S / 2):
            await asyncio.gather(*portions)

        assert engine.batches == [80, 80, 80]

    run(test())


def test_an_oversize_portion_is_refused_and_the_loop_survives() -> None:
    async def test() -> None:
        survivor = batcher(FakeEngine())

        with pytest.raises(EngineFailure):
            await survivor.score(a_portion(BATCH_TOKENS_MAX + 1))

        await survivor.check()
        assert (await survivor.score(a_portion(1))).logits == (1.0,)

    run(test())


def test_a_faulty_portion_and_a_nan_fail_alone() -> None:
    async def test() -> None:
        outcomes = await asyncio.gather(
            *(
                shared.score(a_portion(length))
                for shared in [batcher(FakeEngine())]
                for length in (1, POISON, 2, NAN, 3)
            ),
            return_exceptions=True,
        )

        failed = [isinstance(outcome, EngineFailure) for outcome in outcomes]
        assert failed == [False, True, False, True, False]

    run(test())


def test_a_device_that_fails_on_everything_ends_its_replica() -> None:
    """It answers faster than any other device, so it would get all the work."""

    async def test() -> None:
        engine, failures, sink = FakeEngine(), list[EngineFailure](), RecordingSink()
        dying = batcher(engine, sink, failures.append)
        with pytest.raises(EngineFailure, match="poison"):
            await dying.score(a_portion(POISON))
        assert not failures, "the device works"

        engine.broken = True
        outcomes = await asyncio.gather(
            *(dying.score(a_portion(POISON)) for _ in range(3)), return_exceptions=True
        )

        assert all(isinstance(outcome, ReplicaLost) for outcome in outcomes)
        waits = asyncio.create_task(dying.score(a_portion(1)))
        await asyncio.sleep(2 * LAST_WORDS_S)
        assert [str(failure) for failure in failures] == ["the device is gone"]
        assert not waits.done(), "it is lost with the process and retried elsewhere"
        assert dying.autoscaling_stats().get("tokens_per_s") is None, "nothing was scored"

    run(test())


@pytest.mark.parametrize(
    ("lengths", "problem"), [((POISON,), "poison"), ((NAN, 2), "not a finite number")]
)
def test_a_portion_that_alone_crashed_a_device_is_not_retried(
    lengths: tuple[int, ...], problem: str
) -> None:
    """The device either raises an error or returns NaN."""

    async def test() -> None:
        engine, failures = FakeEngine(), list[EngineFailure]()
        engine.broken = True
        dying = batcher(engine, device_failed=failures.append)

        with pytest.raises(EngineFailure, match=problem):
            await dying.score(a_portion(*lengths))
        await asyncio.sleep(2 * LAST_WORDS_S)

        assert len(failures) == 1

    run(test())


def test_a_cancelled_portion_is_not_computed_and_does_not_delay_the_next() -> None:
    async def test() -> None:
        engine = FakeEngine()
        shared = batcher(engine)
        engine.gate.clear()
        first = asyncio.create_task(shared.score(a_portion(5)))
        await until(lambda: engine.entered == 1)
        given_up = asyncio.create_task(shared.score(a_portion(7)))
        await asyncio.sleep(0.05)
        given_up.cancel()
        engine.gate.set()
        await first
        async with asyncio.timeout(BUSY_WAIT_S / 2):
            await shared.score(a_portion(9))

        assert engine.batches == [5, 9]
        assert shared.autoscaling_stats()["inflight_tokens"] == 0

    run(test())


def test_a_full_batch_cancelled_at_its_start_does_not_delay_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test() -> None:
        engine = FakeEngine()
        shared = batcher(engine)
        engine.gate.clear()
        first = asyncio.create_task(shared.score(a_portion(5)))
        await until(lambda: engine.entered == 1)
        full = asyncio.create_task(shared.score(a_portion(50, 50)))
        await asyncio.sleep(0.05)
        last = asyncio.create_task(shared.score(a_portion(9)))
        await asyncio.sleep(0.05)
        end = shared._end

        def end_as_they_give_up(running: Running) -> None:
            end(running)
            full.cancel()

        monkeypatch.setattr(shared, "_end", end_as_they_give_up)
        engine.gate.set()
        async with asyncio.timeout(BUSY_WAIT_S / 2):
            await asyncio.gather(first, last)

        assert engine.batches == [5, 9]

    run(test())


def test_the_health_check_detects_a_dead_batch_loop_and_a_dead_device() -> None:
    async def test() -> None:
        engine = FakeEngine()
        sick = batcher(engine)
        await sick.check()

        engine.broken = True
        with pytest.raises(EngineFailure):
            await sick.check()

        engine.broken = False
        # A BaseException in the size function ends Ray's loop, as bugs in Ray can.
        await sick.score(a_portion(1))
        loops = [
            task
            for task in asyncio.all_tasks()
            if "_process_batches" in getattr(task.get_coro(), "__qualname__", "")
        ]
        assert len(loops) == 1
        loops[0].cancel()
        await asyncio.sleep(0)
        with pytest.raises(EngineFailure, match="batch loop"):
            await sick.check()

    run(test())
