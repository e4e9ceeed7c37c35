"""A portion is sized by a replica's run time, whatever its speed."""

import pytest

from serve_app.dispatch.inflight_window import DEPTH, Answered, Window
from serve_app.dispatch.portions import PortionSize
from serve_app.domain.model import PortionScores
from serve_app.domain.portion_size import RUN_S, TOKENS_MIN
from serve_app.domain.units import Instant, Seconds, Tokens

MAX = Tokens(8_192)


def scores(tokens: int, tokens_per_s: float, overhead_s: float = 0.0) -> PortionScores:
    run_s = Seconds(overhead_s + tokens / tokens_per_s)
    return PortionScores((), "r1", Seconds(0), run_s, Tokens(tokens))


def after_full_portions(
    count: int, tokens_per_s: float, overhead_s: float = 0.0, size: PortionSize | None = None
) -> PortionSize:
    size = size or PortionSize(MAX)
    for _ in range(count):
        size.answered(scores(size.tokens, tokens_per_s, overhead_s))
    return size


def test_it_begins_small() -> None:
    assert PortionSize(MAX).tokens == TOKENS_MIN
    assert PortionSize(Tokens(100)).tokens == 100


@pytest.mark.parametrize(
    ("tokens_per_s", "tokens"),
    [
        pytest.param(2_600, TOKENS_MIN, id="two cores"),
        pytest.param(10_000, 1_500, id="two cores with a matrix unit"),
        pytest.param(1_000_000, MAX, id="a GPU"),
    ],
)
def test_it_becomes_what_a_replica_scores_in_a_moment(tokens_per_s: float, tokens: int) -> None:
    assert after_full_portions(30, tokens_per_s).tokens == pytest.approx(tokens, abs=2)


def test_a_card_that_is_slow_at_little_work_is_found_to_be_fast() -> None:
    """Each pass takes 5 ms, even an empty one."""
    assert after_full_portions(30, 1_000_000, overhead_s=0.005).tokens == MAX


def test_small_requests_do_not_make_a_card_look_slow() -> None:
    size = after_full_portions(30, 1_000_000, overhead_s=0.005)
    for _ in range(1_000):
        size.answered(scores(70, 1_000_000, overhead_s=0.005))

    assert size.tokens == MAX


def test_a_replica_that_becomes_slower_gets_less() -> None:
    size = after_full_portions(30, 20_000)
    assert size.tokens == pytest.approx(20_000 * RUN_S, abs=2)

    after_full_portions(30, 10_000, size=size)

    assert size.tokens == pytest.approx(10_000 * RUN_S, rel=0.01)


def test_a_batch_that_took_no_time_tells_nothing() -> None:
    size = PortionSize(MAX)
    size.answered(PortionScores((), "r1", Seconds(0), Seconds(0), Tokens(1_000)))

    assert size.tokens == TOKENS_MIN


def test_a_window_holds_some_portions_of_that_size() -> None:
    window, now = Window(MAX), Instant(0)
    assert window.tokens(now) == DEPTH * TOKENS_MIN

    for _ in range(30):
        answer = scores(window.portion_tokens, 10_000)
        window.answered(
            Answered(answer, window.portion_tokens, Seconds(answer.run_s), others_wait=False), now
        )

    assert window.portion_tokens == pytest.approx(1_500, abs=2)
    assert window.tokens(now) == pytest.approx(DEPTH * 1_500, abs=5)
