"""The window follows the replicas' answers."""

import pytest

from serve_app.dispatch.inflight_window import (
    DEPTH,
    DEPTH_MAX,
    DEPTH_MIN,
    REPLICA_MEMORY_S,
    Answered,
    InflightWindow,
)
from serve_app.domain.model import PortionScores
from serve_app.domain.portion_size import RUN_S, TOKENS_MIN
from serve_app.domain.units import Instant, Seconds, Tokens

PORTION = Tokens(TOKENS_MIN)
NOW = Instant(100)
AT_FIRST = DEPTH * PORTION


def answer(
    *,
    replica: str = "r1",
    wait_s: float = 0.0,
    run_s: float = 0.02,
    tokens: Tokens = PORTION,
    others_wait: bool = True,
) -> Answered:
    """Return an answer, by default of a fast replica."""
    scores = PortionScores((), replica, Seconds(wait_s), Seconds(run_s), 0.0)
    return Answered(scores, tokens, others_wait=others_wait)


def after(answers: int, each: Answered, window: InflightWindow | None = None) -> float:
    window = window or InflightWindow(PORTION)
    for _ in range(answers):
        window.answered(each, NOW)
    return window.tokens(NOW)


def test_a_model_without_known_replicas_has_room_for_one() -> None:
    assert InflightWindow(PORTION).tokens(NOW) == AT_FIRST


def test_each_answering_replica_adds_the_same_room() -> None:
    window = InflightWindow(PORTION)
    for replica in ("r1", "r2", "r3", "r2"):
        window.answered(answer(replica=replica, wait_s=0.02), NOW)

    assert window.tokens(NOW) == 3 * AT_FIRST


def test_a_replica_that_stops_answering_is_forgotten() -> None:
    window = InflightWindow(PORTION)
    window.answered(answer(replica="old", wait_s=0.02), NOW)
    later = Instant(NOW + REPLICA_MEMORY_S + 1)
    window.answered(answer(replica="new", wait_s=0.02), later)

    assert window.tokens(later) == AT_FIRST


def test_the_window_grows_while_portions_hardly_wait_and_others_are_queued() -> None:
    assert after(4, answer()) > AT_FIRST
    assert after(10_000, answer()) == DEPTH_MAX * PORTION


def test_the_window_does_not_grow_while_nothing_is_queued() -> None:
    assert after(40, answer(others_wait=False)) == AT_FIRST


def test_the_window_shrinks_while_portions_wait_longer_than_a_run() -> None:
    assert after(40, answer(wait_s=0.08)) < AT_FIRST
    assert after(10_000, answer(wait_s=0.08)) == DEPTH_MIN * PORTION


def test_the_window_is_kept_while_portions_wait_for_one_run() -> None:
    assert after(1_000, answer(wait_s=0.019)) == AT_FIRST


def test_small_portions_behind_large_ones_do_not_shrink_the_window() -> None:
    """Waiting for ten times their own run time is correct for them."""
    window = InflightWindow(PORTION)
    for _ in range(1_000):
        after(1, answer(wait_s=0.019), window)
        after(1, answer(wait_s=0.02, run_s=0.002, tokens=Tokens(50)), window)

    assert window.tokens(NOW) == AT_FIRST


def test_waiting_to_fill_a_batch_does_not_shrink_the_window() -> None:
    assert after(1_000, answer(wait_s=0.003, run_s=0.0005)) >= AT_FIRST


def test_the_window_is_reset_when_no_replica_is_left() -> None:
    shrunk = InflightWindow(PORTION)
    assert after(100, answer(wait_s=0.08), shrunk) < AT_FIRST

    shrunk.lost_all()

    assert shrunk.tokens(NOW) == AT_FIRST


def test_the_window_is_reset_after_a_pause() -> None:
    shrunk = InflightWindow(PORTION)
    assert after(100, answer(wait_s=0.08), shrunk) < AT_FIRST

    assert shrunk.tokens(Instant(NOW + REPLICA_MEMORY_S + 1)) == AT_FIRST


@pytest.mark.parametrize(
    ("tokens_per_s", "tokens"),
    [
        pytest.param(0, TOKENS_MIN, id="unknown"),
        pytest.param(2_600, TOKENS_MIN, id="two cores"),
        pytest.param(10_000, 10_000 * RUN_S, id="two cores with a matrix unit"),
        pytest.param(1_000_000, 8_192, id="a GPU"),
    ],
)
def test_a_portion_has_what_a_replica_scores_in_the_target_time(
    tokens_per_s: float, tokens: float
) -> None:
    window = InflightWindow(Tokens(8_192))
    scores = PortionScores((), "r1", Seconds(0.1), Seconds(0.1), tokens_per_s)
    window.answered(Answered(scores, Tokens(1), others_wait=False), NOW)

    assert window.portion_tokens == tokens
    assert window.tokens(NOW) == DEPTH * tokens


def test_a_portion_never_exceeds_the_limit() -> None:
    assert InflightWindow(Tokens(100)).portion_tokens == 100
