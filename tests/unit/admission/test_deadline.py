"""Excess jobs are rejected early, so that all admitted jobs finish in time."""

import heapq
import itertools
import random
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from serve_app.admission.deadline import BUSY_TOKENS, IDLE_S_MAX, Forecast
from serve_app.dispatch.fair_queue import FairQueue
from serve_app.domain.errors import Overloaded
from serve_app.domain.model import ServiceTier
from serve_app.domain.priority import Claim
from serve_app.domain.units import RequestId, Seconds, Tokens
from tests.support.dispatch_simulation import Item, a_claim
from tests.support.fakes import FakeClock

TIMEOUT_S = Seconds(30)
SPEED = 10_000.0
RUN_S = Seconds(0.1)
NOBODY = RequestId("left long ago")
_numbers = itertools.count()
OTHER = "other"


def an_id() -> RequestId:
    return RequestId(f"r{next(_numbers)}")


def busy(
    inside: Sequence[tuple[Claim, int]], held: ExitStack, *, refuses: bool = True
) -> tuple[Forecast, FakeClock]:
    """Return a model with the known throughput `SPEED` and these admitted jobs."""
    clock = FakeClock()
    forecast = Forecast(clock, refuses=refuses)
    with forecast.hold(an_id(), a_claim("past"), Tokens(BUSY_TOKENS), TIMEOUT_S):
        work_for(10, forecast, clock)
    for claim, tokens in inside:
        held.enter_context(forecast.hold(an_id(), claim, Tokens(tokens), Seconds(10**9)))
    return forecast, clock


def work_for(seconds: int, forecast: Forecast, clock: FakeClock) -> None:
    for _ in range(8 * seconds):
        clock.advance(1 / 8)
        forecast.scored(NOBODY, Tokens(round(SPEED / 8)), RUN_S)


def refusal(forecast: Forecast, claim: Claim, tokens: int, timeout_s: float = 30) -> int | None:
    """Return the seconds after which to retry; ``None`` if the job is admitted."""
    try:
        with forecast.hold(an_id(), claim, Tokens(tokens), Seconds(timeout_s)):
            return None
    except Overloaded as error:
        return error.retry_after_s


def test_an_unknown_speed_refuses_nothing() -> None:
    forecast = Forecast(FakeClock())

    with forecast.hold(an_id(), a_claim(), Tokens(10**9), TIMEOUT_S):
        assert refusal(forecast, a_claim(), 10**9) is None


def test_a_few_jobs_of_strange_texts_do_not_bend_what_an_estimate_is_worth() -> None:
    """A job of a thousand blank documents has few tokens, but an estimate of half a million."""
    with ExitStack() as held:
        forecast, _ = busy([(a_claim(), 66_000)], held)
        for _ in range(100):
            forecast.tokenized(Tokens(350), Tokens(335))
        honest = refusal(forecast, a_claim(), 130_000)
        for _ in range(5):
            forecast.tokenized(Tokens(512_000), Tokens(5_000))

        assert honest is not None
        assert refusal(forecast, a_claim(), 2 * 130_000) is not None


def test_a_job_has_three_fifths_of_its_time_for_itself_and_what_goes_before_it() -> None:
    with ExitStack() as held:
        forecast, _ = busy([(a_claim(), 66_000)], held)

        assert refusal(forecast, a_claim(), 110_000) is None
        assert refusal(forecast, a_claim(OTHER), 120_000) == 1
        assert refusal(forecast, a_claim(OTHER), 130_000) == 2
        assert refusal(forecast, a_claim(OTHER), 80_000, timeout_s=10) == 9


def test_the_queue_of_a_tenant_that_was_refused_is_kept_short_for_half_a_minute() -> None:
    with ExitStack() as held:
        forecast, clock = busy([(a_claim(), 1_000)] * 40, held)
        with ExitStack() as flood:
            for _ in range(139):
                flood.enter_context(forecast.hold(an_id(), a_claim(), Tokens(1_000), TIMEOUT_S))
            assert refusal(forecast, a_claim(), 1_023) == 17

        assert refusal(forecast, a_claim(), 1_000) == 3
        assert refusal(forecast, a_claim(OTHER), 1_000) is None
        assert refusal(forecast, a_claim(), 200) is None, "it would not wait"
        work_for(29, forecast, clock)
        assert refusal(forecast, a_claim(), 1_000) == 3
        work_for(2, forecast, clock)
        assert refusal(forecast, a_claim(), 1_000) is None


def test_a_short_job_passes_however_long_the_others_are() -> None:
    with ExitStack() as held:
        forecast, _ = busy([(a_claim(), 10**6), (a_claim(), 10**6)], held)

        assert refusal(forecast, a_claim(), 1_000) is None


def test_estimates_that_are_always_wrong_do_not_matter() -> None:
    with ExitStack() as held:
        forecast, _ = busy([(a_claim(), 33_000)], held)
        for _ in range(1_000):
            forecast.tokenized(Tokens(500), Tokens(1_000))

        assert refusal(forecast, a_claim(), 55_000) is None
        assert refusal(forecast, a_claim(OTHER), 60_000) == 1


def test_a_short_job_waits_for_as_much_of_long_ones_as_goes_before_it() -> None:
    with ExitStack() as held:
        forecast, _ = busy([(a_claim(), 400_000), *[(a_claim(), 1_000)] * 100], held)

        assert forecast.ahead(a_claim(), Tokens(1_000)) == 100_000 + 101_000
        assert refusal(forecast, a_claim(), 1_000) is not None


def test_short_jobs_that_come_at_once_beside_a_long_one_are_done_or_refused() -> None:
    clock = FakeClock()
    forecast, queue = Forecast(clock), FairQueue[Item]()
    with forecast.hold(an_id(), a_claim("past"), Tokens(BUSY_TOKENS), TIMEOUT_S):
        work_for(10, forecast, clock)
    refused = inside = 0
    with ExitStack() as held:
        for tokens in (150_000, *[1_000] * 175):
            job = an_id()
            try:
                held.enter_context(forecast.hold(job, a_claim(), Tokens(tokens), TIMEOUT_S))
            except Overloaded:
                refused += 1
                continue
            inside += tokens
            parts = [Item(job, each, Tokens(1_000)) for each in range(tokens // 1_000)]
            queue.add(job, a_claim(), parts)

    assert refused > 50
    assert inside / SPEED <= TIMEOUT_S


def test_a_tenants_flood_is_its_own() -> None:
    with ExitStack() as held:
        forecast, _ = busy([(a_claim(), 1_000)] * 300, held)

        assert refusal(forecast, a_claim(), 1_000) is not None
        assert refusal(forecast, a_claim(OTHER), 1_000) is None
        assert forecast.ahead(a_claim(OTHER), Tokens(1_000)) == 1_000


def test_a_long_job_is_let_in_where_little_is_ahead() -> None:
    with ExitStack() as held:
        forecast, _ = busy([(a_claim(), 1_000)] * 30, held)

        assert refusal(forecast, a_claim(), 10**6) is None


def test_a_higher_tier_goes_before_and_a_lower_one_does_not() -> None:
    with ExitStack() as held:
        forecast, _ = busy([(a_claim(), 1_000)] * 300, held)

        assert refusal(forecast, a_claim(tier=ServiceTier.PRIORITY), 1_000) is None
        assert forecast.ahead(a_claim(OTHER, tier=ServiceTier.FLEX), Tokens(1_000)) == 19_000
        assert refusal(forecast, a_claim(OTHER, tier=ServiceTier.FLEX), 10_000) is not None


def test_a_large_job_of_a_higher_tier_lets_others_pass() -> None:
    with ExitStack() as held:
        forecast, _ = busy([(a_claim(tier=ServiceTier.PRIORITY), 500_000)], held)

        assert refusal(forecast, a_claim(OTHER), 100) is None
        assert refusal(forecast, a_claim(OTHER, tier=ServiceTier.FLEX), 100) is None


def test_of_a_job_counts_what_is_left() -> None:
    with ExitStack() as held:
        forecast, _ = busy([], held)
        almost = an_id()
        held.enter_context(forecast.hold(almost, a_claim(), Tokens(100_000), TIMEOUT_S))
        assert refusal(forecast, a_claim(), 100_000) == 2

        forecast.scored(almost, Tokens(99_000), RUN_S)

        assert forecast.ahead(a_claim(), Tokens(100_000)) == pytest.approx(1_000)
        assert refusal(forecast, a_claim(), 100_000) is None


def test_each_time_that_it_was_too_much_again_the_queue_is_kept_short_for_twice_as_long() -> None:
    with ExitStack() as held:
        forecast, clock = busy([(a_claim(), 1_000)] * 40, held)

        def short_for() -> int:
            with ExitStack() as flood:
                for _ in range(139):
                    flood.enter_context(forecast.hold(an_id(), a_claim(), Tokens(1_000), TIMEOUT_S))
                assert refusal(forecast, a_claim(), 1_023) is not None
            seconds = 0
            while refusal(forecast, a_claim(), 1_000) is not None:
                work_for(1, forecast, clock)
                seconds += 1
            return seconds

        times_s = [short_for() for _ in range(6)]
        assert times_s == pytest.approx([30, 60, 120, 240, 480, 480], abs=1)
        work_for(481, forecast, clock)
        assert short_for() == pytest.approx(30, abs=1)


def test_a_client_in_a_hurry_makes_no_queue_stand() -> None:
    with ExitStack() as held:
        forecast, _ = busy([(a_claim(), 1_000)] * 40, held)
        assert refusal(forecast, a_claim(), 1_000, timeout_s=0.1) is not None

        assert refusal(forecast, a_claim(), 1_000) is None


def test_what_waits_for_a_replica_to_start_tells_no_speed() -> None:
    clock = FakeClock()
    forecast = Forecast(clock)
    with ExitStack() as held:
        for _ in range(20):
            held.enter_context(forecast.hold(an_id(), a_claim(), Tokens(1_000), TIMEOUT_S))
        clock.advance(20)
        forecast.scored(NOBODY, Tokens(1_000), RUN_S)
        assert refusal(forecast, a_claim(), 10**6) is None

        work_for(3, forecast, clock)
        assert refusal(forecast, a_claim(), 10**6) is None, "little is ahead"
        for _ in range(40):
            held.enter_context(forecast.hold(an_id(), a_claim(), Tokens(1_000), TIMEOUT_S))
        assert refusal(forecast, a_claim(), 10**6) is not None
        assert refusal(forecast, a_claim(), 60_000) is None, "only recent throughput counts"


def test_a_model_that_stopped_answering_is_as_fast_as_it_was() -> None:
    with ExitStack() as held:
        forecast, clock = busy([(a_claim(), 1_000)] * 300, held)

        clock.advance(60)

        assert refusal(forecast, a_claim(), 1_000) is not None
        assert refusal(forecast, a_claim(OTHER), 1_000) is None


def test_where_the_order_is_another_nobody_is_refused() -> None:
    with ExitStack() as held:
        forecast, _ = busy([(a_claim(), 1_000)] * 300, held, refuses=False)

        assert refusal(forecast, a_claim(), 1_000) is None


def test_whoever_is_refused_or_leaves_holds_nothing() -> None:
    with ExitStack() as held:
        forecast, _ = busy([(a_claim(), 1_000)] * 300, held)
        assert refusal(forecast, a_claim(), 1_000) is not None
        assert forecast.ahead(a_claim(), Tokens(1_000)) == 300_000

    assert forecast.ahead(a_claim(), Tokens(1_000)) == 0


def test_time_without_work_tells_no_speed() -> None:
    with ExitStack() as held:
        forecast, clock = busy([], held)
        clock.advance(IDLE_S_MAX)
        for _ in range(3):
            held.enter_context(forecast.hold(an_id(), a_claim(), Tokens(90_000), Seconds(10**9)))

        assert refusal(forecast, a_claim(), 100_000) == 19


def test_after_a_minute_with_little_inside_the_speed_may_be_another() -> None:
    """Idle replicas may have been stopped or replaced."""
    with ExitStack() as held:
        forecast, clock = busy([], held)
        clock.advance(IDLE_S_MAX / 2)
        with forecast.hold(an_id(), a_claim(), Tokens(100), Seconds(10**9)):
            clock.advance(IDLE_S_MAX / 2 + 1)
        for _ in range(3):
            held.enter_context(forecast.hold(an_id(), a_claim(), Tokens(90_000), Seconds(10**9)))
        assert refusal(forecast, a_claim(), 100_000) is None

        work_for(3, forecast, clock)

        assert refusal(forecast, a_claim(), 100_000) == 19


def test_the_speed_of_a_model_whose_batches_take_long_is_known() -> None:
    clock, run_s, tokens = FakeClock(), Seconds(7), 1_400
    forecast = Forecast(clock)
    with ExitStack() as held:
        for _ in range(20):
            held.enter_context(forecast.hold(an_id(), a_claim(), Tokens(1_000), Seconds(10**9)))
        for _ in range(5):
            clock.advance(run_s)
            forecast.scored(NOBODY, Tokens(tokens), run_s)

        clock.advance(run_s - 1)
        # With the work ahead it has 40,000 tokens; in three fifths of its time 36,000 are scored.
        assert refusal(forecast, a_claim(), 20_000, timeout_s=300) == 4_000 / (tokens / run_s)


def test_a_slow_model_is_busy_with_little() -> None:
    """Short deadlines keep the admitted work small; the throughput stays known all the same."""
    clock = FakeClock()
    forecast = Forecast(clock)
    with ExitStack() as held:

        def work(seconds: int) -> None:
            for _ in range(seconds):
                clock.advance(1)
                forecast.scored(NOBODY, Tokens(1_000), Seconds(0.5))

        with forecast.hold(an_id(), a_claim(), Tokens(BUSY_TOKENS), Seconds(10**9)):
            work(5)
        for _ in range(2):
            held.enter_context(forecast.hold(an_id(), a_claim(), Tokens(900), Seconds(3)))
        work(2 * round(IDLE_S_MAX))

        assert refusal(forecast, a_claim(), 900, timeout_s=3) == 1


def test_a_speed_that_fell_is_known_within_seconds() -> None:
    with ExitStack() as held:
        forecast, clock = busy([(a_claim(), 40_000)] * 2, held)
        assert refusal(forecast, a_claim(), 40_000) is None

        for _ in range(100):
            clock.advance(0.1)
            forecast.scored(NOBODY, Tokens(round(SPEED / 40)), RUN_S)

        assert refusal(forecast, a_claim(), 40_000) is not None


@dataclass(frozen=True)
class Outcome:
    """Shares of the replica's capacity, and the number of rejected and late jobs."""

    done: float
    lost: float
    refused: int
    late: int


class Overload:
    """Jobs arrive at ``load`` times the capacity of one replica, which runs a portion at a time."""

    def __init__(self, sizes: Sequence[int], load: float, until_s: float) -> None:
        self.clock = FakeClock()
        self._sizes = sizes
        self._jobs_per_s = load * SPEED / (sum(sizes) / len(sizes))
        self._source = random.Random(7)
        self._forecast, self._queue = Forecast(self.clock), FairQueue[Item]()
        self._comes_at = self._start = self.clock.now_s
        self._until = self._start + until_s
        self._refused = self._late = self._done_tokens = self._lost_tokens = 0
        self._inside: dict[RequestId, tuple[int, ExitStack]] = {}
        self._left: dict[RequestId, int] = {}
        self._deadlines: list[tuple[float, RequestId]] = []

    def run(self) -> Outcome:
        while self._comes_at < self._until or len(self._queue):
            while self._comes_at < self._until and (
                self._comes_at <= self.clock.now_s or not len(self._queue)
            ):
                self._arrive()
            self._expire()
            part = self._queue.take()
            if part is not None:
                self._score(part)
        capacity = SPEED * (self.clock.now_s - self._start)
        return Outcome(
            self._done_tokens / capacity, self._lost_tokens / capacity, self._refused, self._late
        )

    def _arrive(self) -> None:
        self.clock.now_s = max(self.clock.now_s, self._comes_at)
        self._comes_at += self._source.expovariate(self._jobs_per_s)
        tokens, place, job = self._source.choice(self._sizes), ExitStack(), an_id()
        try:
            place.enter_context(self._forecast.hold(job, a_claim(), Tokens(tokens), TIMEOUT_S))
        except Overloaded:
            self._refused += 1
            return
        self._inside[job], self._left[job] = (tokens, place), tokens
        heapq.heappush(self._deadlines, (self.clock.now_s + TIMEOUT_S, job))
        cuts = [Tokens(min(1_000, tokens - at)) for at in range(0, tokens, 1_000)]
        self._queue.add(job, a_claim(), [Item(job, *each) for each in enumerate(cuts)])

    def _expire(self) -> None:
        while self._deadlines and self._deadlines[0][0] <= self.clock.now_s:
            _, job = heapq.heappop(self._deadlines)
            if job in self._inside:
                self._queue.drop(job)
                self._lost_tokens += self._leave(job) - self._left[job]
                self._late += 1

    def _score(self, part: Item) -> None:
        self.clock.now_s += part.tokens / SPEED
        self._forecast.scored(part.job, part.tokens, RUN_S)
        self._left[part.job] -= part.tokens
        if self._left[part.job] == 0:
            self._done_tokens += self._leave(part.job)

    def _leave(self, job: RequestId) -> int:
        tokens, place = self._inside.pop(job)
        place.close()
        return tokens


@pytest.mark.parametrize(
    ("sizes", "done"),
    [
        pytest.param([2_000], 0.99, id="alike"),
        pytest.param([21_000], 0.95, id="long"),
        pytest.param([40_000], 0.95, id="longer"),
        pytest.param([1_000, 2_000, 10_000], 0.98, id="different"),
        # Each of the long jobs takes more than a quarter of its own time.
        pytest.param([1_000] * 18 + [80_000], 0.9, id="a few very long ones"),
    ],
)
def test_at_twice_the_capacity_nearly_all_work_is_for_answers(
    sizes: Sequence[int], done: float
) -> None:
    outcome = Overload(sizes, load=2, until_s=300).run()

    assert outcome.done >= done
    assert outcome.lost <= 0.04
    assert outcome.refused > 5 * outcome.late


@pytest.mark.parametrize("load", [0.5, 0.8])
@pytest.mark.parametrize("sizes", [[2_000], [1_000, 2_000, 10_000], [21_000]])
def test_below_the_capacity_nobody_is_refused(sizes: Sequence[int], load: float) -> None:
    outcome = Overload(sizes, load, until_s=600).run()

    assert (outcome.refused, outcome.late) == (0, 0)
