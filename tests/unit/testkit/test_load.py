"""The figures computed from the clients' answers, and the arrival times of requests."""

from itertools import pairwise

import pytest

from testkit.load import ALL, Answer, Group, Observed, Target, arrivals, bodies
from testkit.load_figures import documents_per_s, figures, percentile

TARGET = Target("http://127.0.0.1:1/rerank", "some")


def test_a_percentile_is_one_of_the_values() -> None:
    hundred = [float(each) for each in range(100, 0, -1)]

    assert [percentile(hundred, share) for share in (0.5, 0.95, 0.99)] == [50, 95, 99]
    assert percentile([3.0, 1.0, 2.0], 0.99) == 3
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2
    assert percentile([7.0], 0.5) == 7
    assert percentile([], 0.5) is None


def test_a_request_partly_in_the_window_counts_by_that_part() -> None:
    inside = Answer("a", 10, 12.0, 14.0)
    half_before = Answer("a", 20, 8.0, 12.0)
    quarter_inside = Answer("a", 40, 18.0, 26.0)
    around = Answer("a", 100, 0.0, 100.0)
    outside = [Answer("a", 500, 1.0, 10.0), Answer("a", 500, 20.0, 21.0)]

    assert documents_per_s([inside], 10.0, 20.0) == pytest.approx(1.0)
    assert documents_per_s([half_before], 10.0, 20.0) == pytest.approx(1.0)
    assert documents_per_s([quarter_inside], 10.0, 20.0) == pytest.approx(1.0)
    assert documents_per_s([around], 10.0, 20.0) == pytest.approx(1.0)
    assert documents_per_s(outside, 10.0, 20.0) == 0


def test_a_steady_load_has_the_same_speed_in_any_window() -> None:
    one_after_the_other = [Answer("a", 30, 3.0 * turn, 3.0 * turn + 3.0) for turn in range(20)]

    for opened in (3.0, 4.1, 17.7):
        assert documents_per_s(one_after_the_other, opened, opened + 7.3) == pytest.approx(10)


def test_latencies_count_requests_that_begin_in_the_window() -> None:
    group = Group("a", TARGET, clients=2, documents=1)
    answers = [
        Answer("a", 1, 9.0, 19.0),  # Began before the window.
        Answer("a", 1, 10.0, 10.5),
        Answer("a", 1, 19.5, 21.5),  # Answered after the window.
        Answer("a", 1, 20.0, 29.0),  # Began after the window.
        Answer("b", 1, 11.0, 19.0),  # Belongs to another group.
    ]

    (found,) = figures([group], Observed(answers, 10.0, 20.0, cpu_s=1.0))

    assert (found.requests, found.p50_ms, found.p99_ms) == (2, 500, 2_000)


def test_groups_are_counted_separately_and_together() -> None:
    groups = [Group("large", TARGET, 1, 50), Group("small", TARGET, 4, 5)]
    answers = [Answer("large", 50, 0.0, 10.0), Answer("small", 5, 2.0, 3.0)]

    large, small, together = figures(groups, Observed(answers, 0.0, 10.0, cpu_s=1.0))

    assert (large.documents_per_s, small.documents_per_s) == (5.0, 0.5)
    assert (together.name, together.documents_per_s, together.requests) == (ALL, 5.5, 2)
    assert (together.clients, together.documents, together.p99_ms) == (5, None, None)


def test_timed_out_requests_are_counted_without_their_documents() -> None:
    groups = [Group("large", TARGET, 1, 50), Group("small", TARGET, 4, 5)]
    answers = [Answer("large", 0, 0.0, 10.0), Answer("small", 5, 2.0, 3.0)]

    large, small, together = figures(groups, Observed(answers, 0.0, 10.0, cpu_s=1.0))

    assert (large.requests, large.late, large.documents_per_s) == (1, 1, 0.0)
    assert (small.late, together.late) == (0, 1)


def test_arrivals_have_their_rate_and_repeat() -> None:
    times = arrivals(requests_per_s=20, seconds=500, seed=1)

    assert times == sorted(times)
    assert times[0] > 0
    assert times[-1] < 500
    assert abs(len(times) - 10_000) < 400  # Four standard deviations.
    gaps = [after - before for before, after in pairwise(times)]
    longer_than_the_mean = sum(gap > 0.05 for gap in gaps) / len(gaps)
    assert abs(longer_than_the_mean - 0.368) < 0.02  # 1/e; regular gaps would give 0 or 1.
    assert times == arrivals(20, 500, seed=1)
    assert times != arrivals(20, 500, seed=2)


def test_clients_send_different_texts_and_both_servers_the_same() -> None:
    ours, peers = (Group("a", Target(url, "some"), 1, 5) for url in ("http://a", "http://b"))

    assert bodies(ours, seed=1) == bodies(peers, seed=1)
    assert not set(bodies(ours, seed=1)) & set(bodies(ours, seed=2))
