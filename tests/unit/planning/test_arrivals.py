"""Random requests have the rate, sizes, lengths and burstiness of their profile."""

from itertools import pairwise
from statistics import fmean, pstdev

import pytest

from serve_app.planning.arrivals import arrivals
from serve_app.planning.profiles import Traffic

TRAFFIC = Traffic(100, {5: 3, 50: 1})
SECONDS = 100


@pytest.mark.parametrize("burstiness", [1.0, 2.0])
def test_times_have_the_rate_and_burstiness(burstiness: float) -> None:
    bursts = Traffic(100, {1: 1}, burstiness=burstiness)
    times = [each.at_s for each in arrivals(bursts, SECONDS, seed=1)]
    gaps = [after - before for before, after in pairwise(times)]

    assert len(times) == pytest.approx(100 * SECONDS, rel=0.03 * burstiness)
    assert pstdev(gaps) / fmean(gaps) == pytest.approx(burstiness, rel=0.05)


def test_sizes_and_lengths_have_the_shares_and_means() -> None:
    found = [*arrivals(TRAFFIC, SECONDS, seed=1)]
    small = sum(len(each.lengths) == 5 for each in found)
    lengths = [tokens for each in found for tokens in each.lengths]

    assert small / len(found) == pytest.approx(0.75, abs=0.02)
    assert fmean(lengths) == pytest.approx(67, rel=0.03)
    assert pstdev(lengths) / fmean(lengths) == pytest.approx(0.4, rel=0.1)


def test_equal_lengths_are_exact_even_if_they_are_long() -> None:
    long = Traffic(10, {3: 1}, pair_tokens=800, pair_tokens_cv=0)

    assert {each.lengths for each in arrivals(long, 10, seed=1)} == {(800, 800, 800)}


def test_the_load_changes_the_rate() -> None:
    found = [
        each.at_s
        for each in arrivals(TRAFFIC, SECONDS, 1, lambda at: 0.5 if at < SECONDS / 2 else 1.0)
    ]
    early = sum(at < SECONDS / 2 for at in found)

    assert early / (len(found) - early) == pytest.approx(0.5, rel=0.1)


def test_a_seed_gives_the_same_requests() -> None:
    assert [*arrivals(TRAFFIC, 2, 7)] == [*arrivals(TRAFFIC, 2, 7)]
    assert [*arrivals(TRAFFIC, 2, 7)] != [*arrivals(TRAFFIC, 2, 8)]
