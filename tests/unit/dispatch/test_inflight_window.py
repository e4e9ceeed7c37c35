"""The window follows the replicas' answers."""

from dataclasses import replace

from serve_app.dispatch.inflight_window import (
    AHEAD_S,
    DEPTH,
    DEPTH_MAX,
    DEPTH_MIN,
    REPLICA_MEMORY_S,
    Answered,
    Window,
)
from serve_app.domain.model import PortionScores
from serve_app.domain.units import Instant, Seconds, Tokens

PORTION = Tokens(500)
NOW = Instant(100)
AT_FIRST = DEPTH * PORTION


def answer(
    *,
    replica: str = "r1",
    wait_s: float = 0.0,
    run_s: float = 0.02,
    way_s: float = 0.01,
    tokens: Tokens = PORTION,
    others_wait: bool = True,
) -> Answered:
    """Return an answer, by default of a fast replica."""
    scores = PortionScores((), replica, Seconds(wait_s), Seconds(run_s), tokens)
    return Answered(scores, tokens, Seconds(wait_s + run_s + way_s), others_wait=others_wait)


def in_a_batch_of_three(one: Answered) -> Answered:
    """Return the answer as part of a batch with the portions of other gateways."""
    return replace(one, scores=replace(one.scores, batch_tokens=Tokens(3 * one.tokens)))


def after(answers: int, each: Answered, window: Window | None = None) -> float:
    window = window or Window(PORTION)
    for _ in range(answers):
        window.answered(each, NOW)
    return window.tokens(NOW)


def test_a_model_without_replicas_has_room_enough_for_one() -> None:
    assert Window(PORTION).tokens(NOW) == AT_FIRST


def test_every_replica_that_answers_adds_as_much() -> None:
    window = Window(PORTION)
    for replica in ("r1", "r2", "r3", "r2"):
        window.answered(answer(replica=replica, wait_s=0.02), NOW)

    assert window.tokens(NOW) == 3 * AT_FIRST


def test_a_replica_that_answers_no_more_is_forgotten() -> None:
    window = Window(PORTION)
    window.answered(answer(replica="old", wait_s=0.02), NOW)
    later = Instant(NOW + REPLICA_MEMORY_S + 1)
    window.answered(answer(replica="new", wait_s=0.02), later)

    assert window.tokens(later) == AT_FIRST


def test_it_grows_while_portions_hardly_wait_and_the_way_is_long() -> None:
    assert AT_FIRST < after(4, answer()) < after(40, answer())
    assert after(10_000, answer()) == DEPTH_MAX * PORTION


def test_it_does_not_grow_when_nothing_would_fill_it() -> None:
    assert after(40, answer(others_wait=False)) == AT_FIRST


def test_it_does_not_grow_while_the_way_is_short_beside_a_run() -> None:
    assert after(40, answer(run_s=0.05, way_s=0.001)) == AT_FIRST


def test_it_shrinks_while_portions_wait_longer_than_a_run() -> None:
    assert after(40, answer(wait_s=0.08)) < AT_FIRST
    assert after(10_000, answer(wait_s=0.08)) == DEPTH_MIN * PORTION


def test_it_stays_while_portions_wait_for_the_one_before() -> None:
    assert after(1_000, answer(wait_s=0.019, way_s=0.001)) == AT_FIRST


def test_small_portions_behind_large_ones_do_not_make_it_shrink() -> None:
    """Waiting for ten times their own run time is correct for them."""
    window = Window(PORTION)
    for _ in range(1_000):
        after(1, answer(wait_s=0.019, way_s=0.001), window)
        after(1, answer(wait_s=0.02, run_s=0.002, tokens=Tokens(50)), window)

    assert window.tokens(NOW) == AT_FIRST


def test_a_tiny_model_whose_portions_wait_for_company_only_does_not_make_it_shrink() -> None:
    assert after(1_000, answer(wait_s=0.003, run_s=0.0005, way_s=0.002)) >= AT_FIRST


def test_a_slow_replica_is_sent_two_portions_however_long_the_way_is() -> None:
    """New jobs have to wait for everything that is queued at the replica."""
    assert after(1_000, answer(run_s=0.2, way_s=0.1)) == 2 * PORTION


def test_a_fast_replica_is_sent_what_it_scores_before_anybody_notices() -> None:
    per_s = PORTION / 0.06

    assert after(1_000, answer(run_s=0.06, way_s=0.1)) == round(AHEAD_S * per_s)


def test_it_shrinks_while_portions_wait_that_share_long_batches_with_those_of_others() -> None:
    """With three gateways the tokens queued behind a batch of three are as many as in it, so their
    wait is no longer than its run."""
    crowded = in_a_batch_of_three(answer(wait_s=0.6, run_s=0.6, way_s=0.01))

    assert after(10_000, crowded) == DEPTH_MIN * PORTION


def test_it_stays_while_portions_share_short_batches() -> None:
    """People do not notice such waits, and a GPU is fastest with large batches."""
    shared = in_a_batch_of_three(answer(wait_s=0.02, run_s=0.02, way_s=0.001))

    assert after(1_000, shared) == AT_FIRST


def test_without_any_replica_it_begins_anew() -> None:
    shrunk = Window(PORTION)
    assert after(100, answer(wait_s=0.08), shrunk) < AT_FIRST

    shrunk.lost_all()

    assert shrunk.tokens(NOW) == AT_FIRST


def test_after_a_pause_it_begins_anew() -> None:
    shrunk = Window(PORTION)
    assert after(100, answer(wait_s=0.08), shrunk) < AT_FIRST

    assert shrunk.tokens(Instant(NOW + REPLICA_MEMORY_S + 1)) == AT_FIRST
