"""Portions are late after several times the usual time, and the extra work is bounded."""

import pytest

from serve_app.dispatch.lateness import (
    EXTRA_PORTIONS_MAX,
    EXTRA_SHARE,
    LATE_S_MAX,
    LATE_S_MIN,
    LATE_TIMES,
    Lateness,
)
from serve_app.domain.units import Tokens

PORTION = Tokens(1_000)


def after_answers(seconds: float, count: int = 200) -> Lateness:
    lateness = Lateness(PORTION)
    for _ in range(count):
        lateness.answered(PORTION, seconds)
    return lateness


@pytest.mark.parametrize(
    ("usual_s", "late_s"), [(0.01, LATE_S_MIN), (0.5, LATE_TIMES * 0.5), (60.0, LATE_S_MAX)]
)
def test_a_portion_is_late_after_several_times_the_usual_time(
    usual_s: float, late_s: float
) -> None:
    assert after_answers(usual_s).late_s == pytest.approx(late_s)


def test_one_slow_answer_changes_little() -> None:
    lateness = after_answers(0.5)

    lateness.answered(PORTION, 2.0)

    assert lateness.late_s < 1.5 * LATE_TIMES * 0.5


def test_a_few_late_portions_are_sent_again_at_once() -> None:
    lateness = Lateness(PORTION)

    allowed = [lateness.may_send_again(PORTION) for _ in range(2 * EXTRA_PORTIONS_MAX)]

    assert sum(allowed) == EXTRA_PORTIONS_MAX


def test_in_the_long_run_the_extra_work_is_a_small_share() -> None:
    lateness, answered, extra = Lateness(PORTION), 0, 0
    for _ in range(10_000):
        lateness.answered(PORTION, 1.0)
        answered += PORTION
        extra += PORTION * lateness.may_send_again(PORTION)

    assert extra <= EXTRA_SHARE * answered + EXTRA_PORTIONS_MAX * PORTION


def test_a_quiet_time_saves_up_no_more_than_at_the_start() -> None:
    lateness = after_answers(0.1, count=10_000)

    assert sum(lateness.may_send_again(PORTION) for _ in range(100)) == EXTRA_PORTIONS_MAX
