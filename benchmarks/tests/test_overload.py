"""The figures computed from the clients' observations."""

import pytest

from benchmarks.autoscaling.simulated import reversals
from benchmarks.service.overload import DOCUMENTS, Phase, Seen, fill_in_figures


def test_goodput_counts_answers_from_the_first_one_to_the_end_of_the_load() -> None:
    phase = Phase(None, 10.0, 1.0)
    answers = [Seen(number, 1.0 + number, 200, None) for number in range(6)]
    late = Seen(9.0, 25.0, 200, None)
    refusals = [Seen(5.0, 5.01, 429, "3"), Seen(6.0, 6.02, 429, "7"), Seen(7.0, 7.01, 429, "4")]
    after = Seen(10.5, 12.0, 200, None)

    fill_in_figures(phase, [*answers, late, *refusals, after], closed=10.0)

    assert phase.statuses == {200: 7, 429: 3}
    assert phase.goodput_documents_per_s == round(5 * DOCUMENTS / 9, 1)
    assert phase.retry_after_s == [3, 4, 7]
    assert phase.refusal_p99_ms == pytest.approx(20, abs=0.1)
    assert phase.answer_p99_ms == pytest.approx(16_000)


def test_a_refusal_without_a_whole_number_of_seconds_is_a_failure() -> None:
    answers = [Seen(0.0, 1.0, 200, None), Seen(0.0, 2.0, 200, None)]

    with pytest.raises(ValueError, match="missing"):
        fill_in_figures(Phase(None, 10.0, 1.0), [*answers, Seen(5.0, 5.1, 429, None)], closed=10.0)


@pytest.mark.parametrize(
    ("wanted", "count"),
    [([1, 4, 4], 0), ([1, 4, 3, 2], 1), ([1, 4, 1, 4], 2), ([1], 0)],
)
def test_a_reversal_is_a_change_the_other_way(wanted: list[int], count: int) -> None:
    assert reversals(wanted) == count
