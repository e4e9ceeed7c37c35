"""Number of replicas by load: a table, and traces on a virtual clock."""

import math
import random
from collections.abc import Callable

import pytest

from serve_app.domain.units import Instant, Seconds, Tokens
from serve_app.scaling.policy import GAP_S, Bounds, Goals, Load, Sample, decide, needed

GOALS = Goals()
TO_EIGHT = Bounds(1, 8)
FROM_ZERO = Bounds(0, 8)
TICK_S = 0.1
SPEED = 1_000.0

Needs = Callable[[float], int | None]


def a_load(
    waiting: int | None = 0,
    inflight: int = 0,
    *,
    speed: float | None = SPEED,
    busy: float = 0,
    portions: float = 0,
) -> Load:
    tokens = None if waiting is None else Tokens(waiting)
    return Load(tokens, Tokens(inflight), speed, busy, portions)


@pytest.mark.parametrize(
    ("load", "target", "replicas"),
    [
        pytest.param(a_load(), 3, 0, id="nothing to do"),
        pytest.param(a_load(1), 3, 1, id="hardly anything to do"),
        pytest.param(a_load(4_000), 1, 4, id="four seconds' work waits"),
        pytest.param(a_load(0, 4_000), 1, 4, id="it is on the replicas already"),
        pytest.param(a_load(2_500, 1_500), 1, 4, id="some waits, some runs"),
        pytest.param(a_load(4_090), 1, 4, id="a little more is no reason for another one"),
        pytest.param(a_load(4_200), 1, 5, id="more than a little is"),
        pytest.param(a_load(4_000, speed=4_000.0), 1, 1, id="a fast replica"),
        pytest.param(a_load(10**12), 1, 10**9, id="far too much"),
        pytest.param(a_load(100, 100, busy=2.7), 4, 4, id="busy: three would hardly keep up"),
        pytest.param(a_load(100, 100, busy=2.3), 4, 3, id="three would keep up"),
        pytest.param(a_load(100, 100, busy=2.3), 2, 2, id="busy is no reason for more"),
        pytest.param(a_load(0, 0, busy=0.1), 4, 1, id="it has just become idle"),
        pytest.param(a_load(0, 0, busy=1.4), 4, 2, id="busy as the count of over one batch"),
        pytest.param(a_load(portions=1), 0, 1, id="some wait for the first one to start"),
        pytest.param(a_load(None), 3, None, id="no gateway reports"),
        pytest.param(a_load(None, 9_000, busy=3), 3, None, id="only replicas report"),
        pytest.param(a_load(9_000, speed=None), 3, 3, id="speed unknown: as many as there are"),
        pytest.param(a_load(9_000, speed=None), 0, 1, id="speed unknown and none there: one"),
        pytest.param(a_load(9_000, speed=0.0), 2, 2, id="no speed at all"),
        pytest.param(a_load(0, speed=None), 0, 0, id="nothing to do and none there"),
    ],
)
def test_a_load_needs_these_replicas(load: Load, target: int, replicas: int | None) -> None:
    assert needed(load, target, GOALS) == replicas


def test_a_longer_delay_needs_fewer_replicas() -> None:
    assert needed(a_load(4_000), 1, Goals(delay_s=Seconds(2))) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"delay_s": 0},
        {"up_after_s": -1},
        {"down_after_s": math.inf},
        {"zero_after_s": math.nan},
        {"busy_max": 0},
        {"busy_max": 1.1},
    ],
)
def test_contradictory_goals_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="above 0"):
        Goals(**wrong)  # type: ignore[arg-type]  # a config file may hold it


def follow(
    needs: Needs,
    until_s: float,
    *,
    target: int = 1,
    bounds: Bounds = TO_EIGHT,
    goals: Goals = GOALS,
) -> list[int]:
    targets: list[int] = []
    history = None
    for tick in range(round(until_s / TICK_S)):
        now = Instant(1_000 + tick * TICK_S)
        count = needs(tick * TICK_S)
        sample = None if count is None else Sample(now, count)
        decision = decide(sample, target, bounds, history, goals)
        target, history = decision.target, decision.history
        targets.append(target)
    return targets


def at(targets: list[int], at_s: float) -> int:
    return targets[round(at_s / TICK_S)]


def changes(targets: list[int]) -> list[int]:
    return [each for index, each in enumerate(targets) if index == 0 or targets[index - 1] != each]


def test_a_load_step_is_followed_quickly_and_fully() -> None:
    targets = follow(lambda now_s: 1 if now_s < 30 else 4, 60)

    assert changes(targets) == [1, 4]
    assert at(targets, 31.7) == 4


def test_a_short_burst_starts_no_replica() -> None:
    targets = follow(lambda now_s: 8 if now_s % 10 < 0.8 else 1, 120)

    assert changes(targets) == [1]


@pytest.mark.parametrize("burst_s", [0.1, 0.5, 0.9])
def test_a_single_report_starts_no_replica(burst_s: float) -> None:
    """A report that falls into a burst stays valid until the next one."""
    for phase in range(10):
        reported_s = [phase / 10 + 1.02 * number for number in range(60)]

        def needs(now_s: float, reported_s: list[float] = reported_s) -> int:
            last_s = max((each for each in reported_s if each <= now_s), default=-1.0)
            return 8 if last_s % 7 < burst_s else 1

        assert changes(follow(needs, 60)) == [1]


def test_replicas_stay_for_a_while_and_then_fall_to_the_maximum_needed_meanwhile() -> None:
    targets = follow(lambda now_s: 6 if now_s < 30 else 3 if now_s < 60 else 1, 700)

    assert changes(targets) == [1, 6, 3, 1]
    assert at(targets, 320) == 6
    assert at(targets, 332) == 3
    assert at(targets, 362) == 1


@pytest.mark.parametrize("period_s", [2.5, 10, 60, 120, 300])
def test_alternating_load_does_not_cause_flapping(period_s: float) -> None:
    """At most one reversal in ten minutes of square-wave load."""
    targets = follow(lambda now_s: 6 if now_s % period_s < period_s / 2 else 0, 600)

    assert len(changes(targets)) <= 3


@pytest.mark.parametrize("seed", range(20))
def test_noise_does_not_cause_flapping(seed: int) -> None:
    chance = random.Random(seed)
    targets = follow(lambda _: chance.choice([3, 4, 5]), 1_200, target=4)

    assert len(changes(targets)) <= 2


def test_replicas_scale_to_zero_and_back() -> None:
    work = {(50, 51), (700, 700.5)}
    targets = follow(
        lambda now_s: int(any(begin <= now_s < end for begin, end in work)),
        1_500,
        target=0,
        bounds=FROM_ZERO,
    )

    assert changes(targets) == [0, 1, 0, 1, 0]
    assert at(targets, 50) == 1, "a request waits for the first one"
    assert at(targets, 650) == 1
    assert at(targets, 651.2) == 0
    assert at(targets, 700) == 1


def test_from_zero_one_replica_starts_first_and_more_once_confirmed() -> None:
    targets = follow(lambda _: 5, 10, target=0, bounds=FROM_ZERO)

    assert changes(targets) == [1, 5]


@pytest.mark.parametrize("bounds", [Bounds(0, 0), Bounds(2, 3), Bounds(1, 1), Bounds(3, 64)])
@pytest.mark.parametrize("target", [0, 1, 5, 100])
@pytest.mark.parametrize("seed", range(5))
def test_the_target_never_leaves_its_bounds(seed: int, bounds: Bounds, target: int) -> None:
    chance = random.Random(seed)
    needs: Needs = lambda _: chance.choice([None, 0, 1, 7, 10**9])  # noqa: E731 - its type is checked

    targets = follow(needs, 60, target=target, bounds=bounds, goals=quick_goals())

    assert all(bounds.least <= each <= bounds.most for each in targets)


def quick_goals() -> Goals:
    return Goals(up_after_s=Seconds(0.5), down_after_s=Seconds(2), zero_after_s=Seconds(3))


def test_without_samples_the_target_stays() -> None:
    targets = follow(lambda now_s: 4 if now_s < 10 else None, 2_000)

    assert changes(targets) == [1, 4]


def test_after_missing_samples_no_replica_stops_before_enough_new_ones() -> None:
    def needs(now_s: float) -> int | None:
        return None if 290 <= now_s < 291 else 4 if now_s < 10 else 1

    targets = follow(needs, 700)

    assert changes(targets) == [1, 4, 1]
    assert at(targets, 590) == 4


def test_a_restarted_controller_keeps_the_replicas() -> None:
    before = follow(lambda _: 6, 100)
    after = follow(lambda _: 2, 600, target=before[-1])

    assert changes(after) == [6, 2]
    assert after.index(2) >= 300 / TICK_S


@pytest.mark.parametrize("step_s", [-3_600.0, GAP_S + 1, 3_600.0])
def test_a_clock_jump_stops_no_replica(step_s: float) -> None:
    decision = decide(Sample(Instant(1_000), 4), 4, TO_EIGHT, None, GOALS)

    decision = decide(
        Sample(Instant(1_000 + step_s), 1), decision.target, TO_EIGHT, decision.history, GOALS
    )

    assert decision.target == 4


def test_the_history_stays_small() -> None:
    chance = random.Random(3)
    history, target = None, 1
    for tick in range(20_000):
        sample = Sample(Instant(tick * TICK_S), chance.randint(0, 10**6))
        decision = decide(sample, target, TO_EIGHT, history, GOALS)
        history, target = decision.history, decision.target
        assert history is not None
        assert len(history.lows) + len(history.highs) <= 2 * TO_EIGHT.most
