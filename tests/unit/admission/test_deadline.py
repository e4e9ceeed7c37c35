"""Excess jobs are rejected early, so that all admitted jobs finish in time."""

import itertools
from collections.abc import Sequence
from contextlib import ExitStack

import pytest

from serve_app.admission.deadline import DeadlineAdmission
from serve_app.admission.throughput import BUSY_TOKENS, IDLE_S_MAX
from serve_app.dispatch.fair_queue import FairQueue
from serve_app.domain.errors import Overloaded
from serve_app.domain.model import ServiceTier
from serve_app.domain.priority import Claim
from serve_app.domain.units import RequestId, Seconds, Tokens
from testkit.overload_simulation import Overload
from tests.support.dispatch_simulation import Item, a_claim
from tests.support.fakes import FakeClock

TIMEOUT_S = Seconds(30)
SPEED = 10_000.0
RUN_S = Seconds(0.1)
_numbers = itertools.count()
OTHER = "other"

with DeadlineAdmission(FakeClock()).hold(a_claim(), Tokens(1), TIMEOUT_S) as DONE:
    """A job that has left."""


def an_id() -> RequestId:
    return RequestId(f"r{next(_numbers)}")


def busy(
    inside: Sequence[tuple[Claim, int]], held: ExitStack
) -> tuple[DeadlineAdmission, FakeClock]:
    """Return a model with the known throughput `SPEED` and these admitted jobs."""
    clock = FakeClock()
    admission = DeadlineAdmission(clock)
    with admission.hold(a_claim("past"), Tokens(BUSY_TOKENS), TIMEOUT_S):
        work_for(10, admission, clock)
    for claim, tokens in inside:
        held.enter_context(admission.hold(claim, Tokens(tokens), Seconds(10**9)))
    return admission, clock


def work_for(seconds: int, admission: DeadlineAdmission, clock: FakeClock) -> None:
    for _ in range(8 * seconds):
        clock.advance(1 / 8)
        admission.scored(DONE, Tokens(round(SPEED / 8)), RUN_S)


def refusal(
    admission: DeadlineAdmission, claim: Claim, tokens: int, timeout_s: float = 30
) -> int | None:
    """Return the seconds after which to retry; ``None`` if the job is admitted."""
    try:
        with admission.hold(claim, Tokens(tokens), Seconds(timeout_s)):
            return None
    except Overloaded as error:
        return error.retry_after_s


def test_nothing_is_refused_before_the_throughput_is_known() -> None:
    admission = DeadlineAdmission(FakeClock())

    with admission.hold(a_claim(), Tokens(10**9), TIMEOUT_S):
        assert refusal(admission, a_claim(), 10**9) is None


def test_a_few_jobs_with_wrong_estimates_hardly_change_the_correction() -> None:
    """A job of a thousand blank documents has few tokens, but an estimate of half a million."""
    with ExitStack() as held:
        admission, _ = busy([(a_claim(), 200_000)], held)
        for _ in range(100):
            admission.tokenized(Tokens(350), Tokens(335))
        assert refusal(admission, a_claim(), 200_000) is not None

        for _ in range(5):
            admission.tokenized(Tokens(512_000), Tokens(5_000))

        assert refusal(admission, a_claim(), 200_000) is not None


def test_the_work_ahead_of_a_job_may_take_three_tenths_of_its_time() -> None:
    with ExitStack() as held:
        admission, _ = busy([(a_claim(), 89_000)], held)
        assert refusal(admission, a_claim(), 89_000) is None

        held.enter_context(admission.hold(a_claim(), Tokens(21_000), Seconds(10**9)))

        assert refusal(admission, a_claim(), 90_000) == 2
        assert refusal(admission, a_claim(OTHER), 89_000) is None, "they share the replica"
        assert refusal(admission, a_claim(OTHER), 89_000, timeout_s=10) == 6


def test_a_short_job_is_admitted_next_to_long_ones() -> None:
    with ExitStack() as held:
        admission, _ = busy([(a_claim(), 10**6), (a_claim(), 10**6)], held)

        assert refusal(admission, a_claim(), 1_000) is None


def test_estimates_that_are_always_wrong_are_corrected() -> None:
    with ExitStack() as held:
        admission, _ = busy([(a_claim(), 60_000)], held)
        assert refusal(admission, a_claim(), 60_000) is None

        for _ in range(1_000):
            admission.tokenized(Tokens(500), Tokens(1_000))

        assert refusal(admission, a_claim(), 60_000) == 3


def test_the_work_ahead_of_a_short_job_includes_its_share_of_a_long_one() -> None:
    with ExitStack() as held:
        admission, _ = busy([(a_claim(), 400_000), *[(a_claim(), 1_000)] * 100], held)

        assert admission.ahead(a_claim(), Tokens(1_000)) == 100_000 + 101_000
        assert refusal(admission, a_claim(), 1_000) is not None


def test_a_burst_of_short_jobs_next_to_a_long_one_is_partly_refused() -> None:
    clock = FakeClock()
    admission, queue = DeadlineAdmission(clock), FairQueue[Item]()
    with admission.hold(a_claim("past"), Tokens(BUSY_TOKENS), TIMEOUT_S):
        work_for(10, admission, clock)
    refused = inside = 0
    with ExitStack() as held:
        for tokens in (150_000, *[1_000] * 175):
            job = an_id()
            try:
                held.enter_context(admission.hold(a_claim(), Tokens(tokens), TIMEOUT_S))
            except Overloaded:
                refused += 1
                continue
            inside += tokens
            parts = [Item(job, each, Tokens(1_000)) for each in range(tokens // 1_000)]
            queue.add(job, a_claim(), parts)

    assert refused > 50
    assert inside / SPEED <= TIMEOUT_S


def test_a_flood_is_refused_to_its_tenant_only() -> None:
    with ExitStack() as held:
        admission, _ = busy([(a_claim(), 1_000)] * 300, held)

        assert refusal(admission, a_claim(), 1_000) is not None
        assert refusal(admission, a_claim(OTHER), 1_000) is None
        assert admission.ahead(a_claim(OTHER), Tokens(1_000)) == 1_000


def test_a_job_of_any_length_is_admitted_if_little_is_ahead() -> None:
    with ExitStack() as held:
        admission, _ = busy([(a_claim(), 1_000)] * 30, held)

        assert refusal(admission, a_claim(), 10**6) is None


def test_work_of_higher_tiers_is_ahead_and_of_lower_tiers_is_not() -> None:
    with ExitStack() as held:
        admission, _ = busy([(a_claim(), 1_000)] * 300, held)

        assert refusal(admission, a_claim(tier=ServiceTier.PRIORITY), 1_000) is None
        assert admission.ahead(a_claim(OTHER, tier=ServiceTier.FLEX), Tokens(1_000)) == 19_000
        assert refusal(admission, a_claim(OTHER, tier=ServiceTier.FLEX), 10_000) is not None


def test_a_large_job_of_a_higher_tier_is_not_ahead_entirely() -> None:
    with ExitStack() as held:
        admission, _ = busy([(a_claim(tier=ServiceTier.PRIORITY), 500_000)], held)

        assert refusal(admission, a_claim(OTHER), 100) is None
        assert refusal(admission, a_claim(OTHER, tier=ServiceTier.FLEX), 100) is None


def test_scored_portions_of_a_job_are_no_longer_ahead() -> None:
    with ExitStack() as held:
        admission, _ = busy([], held)
        almost = held.enter_context(admission.hold(a_claim(), Tokens(110_000), TIMEOUT_S))
        assert refusal(admission, a_claim(), 100_000) == 2

        admission.scored(almost, Tokens(109_000), RUN_S)

        assert admission.ahead(a_claim(), Tokens(100_000)) == pytest.approx(1_000)
        assert refusal(admission, a_claim(), 100_000) is None


def test_time_without_a_replica_does_not_count_for_throughput() -> None:
    clock = FakeClock()
    admission = DeadlineAdmission(clock)
    with ExitStack() as held:
        for _ in range(20):
            held.enter_context(admission.hold(a_claim(), Tokens(1_000), TIMEOUT_S))
        clock.advance(20)
        admission.scored(DONE, Tokens(1_000), RUN_S)
        assert refusal(admission, a_claim(), 10**6) is None

        work_for(3, admission, clock)
        assert refusal(admission, a_claim(), 10**6) is None, "little is ahead"
        for _ in range(40):
            held.enter_context(admission.hold(a_claim(), Tokens(1_000), TIMEOUT_S))
        for _ in range(60):
            held.enter_context(admission.hold(a_claim(), Tokens(1_000), Seconds(10**9)))
        assert refusal(admission, a_claim(), 1_000) == 3, "only recent throughput counts"


def test_a_model_that_stops_answering_keeps_its_last_throughput() -> None:
    with ExitStack() as held:
        admission, clock = busy([(a_claim(), 1_000)] * 300, held)

        clock.advance(60)

        assert refusal(admission, a_claim(), 1_000) is not None
        assert refusal(admission, a_claim(OTHER), 1_000) is None


def test_refused_and_finished_jobs_hold_nothing() -> None:
    with ExitStack() as held:
        admission, _ = busy([(a_claim(), 1_000)] * 300, held)
        assert refusal(admission, a_claim(), 1_000) is not None
        assert admission.ahead(a_claim(), Tokens(1_000)) == 300_000

    assert admission.ahead(a_claim(), Tokens(1_000)) == 0


def test_idle_time_does_not_count_for_throughput() -> None:
    with ExitStack() as held:
        admission, clock = busy([], held)
        clock.advance(IDLE_S_MAX)
        for _ in range(3):
            held.enter_context(admission.hold(a_claim(), Tokens(90_000), Seconds(10**9)))

        assert refusal(admission, a_claim(), 100_000) == 18


def test_the_throughput_expires_after_a_minute_with_little_work() -> None:
    """Idle replicas may have been stopped or replaced."""
    with ExitStack() as held:
        admission, clock = busy([], held)
        clock.advance(IDLE_S_MAX / 2)
        with admission.hold(a_claim(), Tokens(100), Seconds(10**9)):
            clock.advance(IDLE_S_MAX / 2 + 1)
        for _ in range(3):
            held.enter_context(admission.hold(a_claim(), Tokens(90_000), Seconds(10**9)))
        assert refusal(admission, a_claim(), 100_000) is None

        work_for(3, admission, clock)

        assert refusal(admission, a_claim(), 100_000) == 18


def test_throughput_is_known_for_a_model_with_long_batches() -> None:
    clock, run_s, tokens = FakeClock(), Seconds(7), 1_400
    admission = DeadlineAdmission(clock)
    with ExitStack() as held:
        for _ in range(20):
            held.enter_context(admission.hold(a_claim(), Tokens(1_000), Seconds(10**9)))
        for _ in range(5):
            clock.advance(run_s)
            admission.scored(DONE, Tokens(tokens), run_s)

        clock.advance(run_s - 1)
        # 20,000 tokens are ahead; in three tenths of its time 18,000 are scored.
        assert refusal(admission, a_claim(), 20_000, timeout_s=300) == 2_000 / (tokens / run_s)


def test_a_slow_model_is_busy_with_little_work() -> None:
    """Short deadlines keep the admitted work small; the throughput stays known all the same."""
    clock = FakeClock()
    admission = DeadlineAdmission(clock)
    with ExitStack() as held:

        def work(seconds: int) -> None:
            for _ in range(seconds):
                clock.advance(1)
                admission.scored(DONE, Tokens(1_000), Seconds(0.5))

        with admission.hold(a_claim(), Tokens(BUSY_TOKENS), Seconds(10**9)):
            work(5)
        for _ in range(2):
            held.enter_context(admission.hold(a_claim(), Tokens(900), Seconds(4)))
        work(2 * round(IDLE_S_MAX))

        assert refusal(admission, a_claim(), 900, timeout_s=4) == 1


def test_a_drop_in_throughput_is_noticed_within_seconds() -> None:
    with ExitStack() as held:
        admission, clock = busy([(a_claim(), 40_000)] * 2, held)
        assert refusal(admission, a_claim(), 40_000) is None

        for _ in range(100):
            clock.advance(0.1)
            admission.scored(DONE, Tokens(round(SPEED / 40)), RUN_S)

        assert refusal(admission, a_claim(), 40_000) is not None


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
def test_at_twice_the_capacity_nearly_all_work_is_answered(
    sizes: Sequence[int], done: float
) -> None:
    result = Overload(sizes, load=2, until_s=300).run()

    assert result.done >= done
    assert result.lost <= 0.04
    assert result.refused > 5 * result.late


@pytest.mark.parametrize(
    ("sizes", "load", "refused"),
    [
        ([2_000], 0.5, 0),
        ([2_000], 0.8, 0),
        ([1_000, 2_000, 10_000], 0.5, 0),
        ([1_000, 2_000, 10_000], 0.8, 0),
        ([21_000], 0.5, 0),
        # Of 230 jobs of two seconds, a few arrive at random behind more than nine seconds of work.
        ([21_000], 0.8, 5),
    ],
)
def test_below_the_capacity_hardly_any_job_is_refused(
    sizes: Sequence[int], load: float, refused: int
) -> None:
    result = Overload(sizes, load, until_s=600).run()

    assert result.late == 0
    assert result.refused <= refused
