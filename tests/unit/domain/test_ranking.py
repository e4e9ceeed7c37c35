"""Ranking and scores of arbitrary logits."""

import itertools
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serve_app.domain.errors import EngineFailure
from serve_app.domain.ranking import rank, relevance_score

logit_lists = st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0.0, 1]))
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
top_ns = st.none() | st.integers(min_value=1, max_value=1_000)


@unhurried
@given(logit_lists, top_ns)
def test_the_ranking_has_the_best_documents_once_each(
    logits: list[float], top_n: int | None
) -> None:
    order = rank(logits, top_n)

    assert len(order) == (len(logits) if top_n is None else min(top_n, len(logits)))
    assert len(set(order)) == len(order)
    left_out = [logits[index] for index in set(range(len(logits))) - set(order)]
    assert all(logits[index] >= logit for index in order for logit in left_out)


@unhurried
@given(logit_lists, top_ns)
def test_the_best_come_first_and_ties_keep_the_request_order(
    logits: list[float], top_n: int | None
) -> None:
    order = rank(logits, top_n)

    for earlier, later in itertools.pairwise(order):
        assert (logits[earlier], -earlier) > (logits[later], -later)


@unhurried
@given(logit_lists, st.integers(min_value=1, max_value=50))
def test_a_shorter_ranking_is_a_prefix_of_a_longer_one(logits: list[float], top_n: int) -> None:
    assert rank(logits, top_n) == rank(logits, None)[:top_n]


@unhurried
@given(
    logit_lists, st.sampled_from([math.nan, math.inf, -math.inf]), st.integers(min_value=0), top_ns
)
def test_a_logit_that_is_not_a_number_fails_the_whole_ranking(
    logits: list[float], broken: float, place: int, top_n: int | None
) -> None:
    logits.insert(place % (len(logits) + 1), broken)

    with pytest.raises(EngineFailure):
        rank(logits, top_n)


@unhurried
@given(st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_scores_lie_between_0_and_1_and_keep_the_order(one: float, other: float) -> None:
    low, high = sorted([one, other])

    assert 0 <= relevance_score(low) <= relevance_score(high) <= 1


@pytest.mark.parametrize(
    ("logit", "score"), [(0.0, 0.5), (math.log(3), 0.75), (-1e308, 0.0), (1e308, 1.0)]
)
def test_the_score_is_the_logistic_function(logit: float, score: float) -> None:
    assert relevance_score(logit) == pytest.approx(score)


@unhurried
@given(logits=logit_lists, top_n=top_ns, data=st.data())
def test_a_document_has_the_place_of_its_best_window(
    logits: list[float], top_n: int | None, data: st.DataObject
) -> None:
    owners = st.lists(st.integers(0, 5), min_size=len(logits), max_size=len(logits))
    documents = sorted(data.draw(owners))

    order = rank(logits, top_n, documents)

    best = []
    for document in sorted(set(documents)):
        windows = [i for i, owner in enumerate(documents) if owner == document]
        best.append(max(windows, key=lambda window: (logits[window], -window)))
    assert order == sorted(best, key=lambda window: (-logits[window], window))[:top_n]


def test_the_first_of_equal_windows_counts() -> None:
    assert rank([1.0, 3.0, 3.0, 3.0], None, [0, 0, 0, 1]) == [1, 3]


def test_a_window_that_is_not_a_number_fails_the_whole_ranking() -> None:
    with pytest.raises(EngineFailure):
        rank([1.0, math.nan, 0.5], 1, [0, 0, 1])
