"""A canary's tenants are the right share and always the same ones; rankings are compared."""

import random
from itertools import pairwise

import pytest
from scipy.stats import kendalltau

from serve_app.domain.canary import is_chosen, kendall_tau, overlap_at_10

CHANCE = random.Random(1)
TENANTS = [f"tn_{CHANCE.getrandbits(64):016x}" for _ in range(10_000)]


def chosen(share: float, model: str = "embedded") -> set[str]:
    return {tenant for tenant in TENANTS if is_chosen(share, model, tenant)}


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_the_share_of_the_tenants_is_within_a_hundredth(share: float) -> None:
    assert abs(len(chosen(share)) / len(TENANTS) - share) < 0.01


def test_a_larger_share_only_adds_tenants() -> None:
    shares = [0, 0.01, 0.05, 0.05, 0.2, 1]
    sets = [chosen(share) for share in shares]

    assert all(smaller <= larger for smaller, larger in pairwise(sets))
    assert sets[0] == set()
    assert sets[-1] == set(TENANTS)


def test_the_tenants_of_one_model_are_not_those_of_another() -> None:
    assert 0.02 < len(chosen(0.2) & chosen(0.2, "other")) / len(TENANTS) < 0.06


def test_the_choice_is_the_same_in_every_process_and_version() -> None:
    assert [is_chosen(0.5, "embedded", f"tn_{number}") for number in range(4)] == [
        *(True, False, False, True)
    ]


@pytest.mark.parametrize("documents", [2, 3, 11, 200])
def test_kendalls_tau_is_that_of_scipy(documents: int) -> None:
    ours, theirs = (CHANCE.sample(range(documents), documents) for _ in range(2))
    places = ([ranking.index(each) for each in range(documents)] for ranking in (ours, theirs))

    assert kendall_tau(ours, theirs) == pytest.approx(kendalltau(*places).statistic)


def test_equal_and_reversed_rankings_are_the_extremes() -> None:
    ranking = [*range(30)]

    assert (kendall_tau(ranking, ranking), overlap_at_10(ranking, ranking)) == (1, 1)
    assert (kendall_tau(ranking, ranking[::-1]), overlap_at_10(ranking, ranking[::-1])) == (-1, 0)
    assert (kendall_tau([7], [7]), overlap_at_10([7], [7])) == (1, 1)


def test_only_the_ten_best_documents_overlap() -> None:
    assert overlap_at_10([*range(20)], [0, 1, 2, *range(10, 20), *range(3, 10)]) == 0.3
