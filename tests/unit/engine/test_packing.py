"""Every sequence is computed once, within the limit, and gets its own result."""

import random
from collections.abc import Sequence
from itertools import pairwise, product

from hypothesis import given
from hypothesis import strategies as st

from serve_app.engine.packing import plan, split, unplan

LENGTHS = st.lists(st.integers(1, 600), max_size=80)
LIMIT = st.integers(16, 2_000)
COST = st.integers(0, 300)


@given(lengths=LENGTHS, limit=LIMIT, cost=COST)
def test_every_sequence_is_in_exactly_one_pass(lengths: list[int], limit: int, cost: int) -> None:
    members = [position for each in plan(lengths, limit, cost) for position in each.members]

    assert sorted(members) == list(range(len(lengths)))


@given(lengths=LENGTHS, limit=LIMIT, cost=COST)
def test_a_pass_stays_within_the_limit_unless_it_has_one_sequence(
    lengths: list[int], limit: int, cost: int
) -> None:
    for each in plan(lengths, limit, cost):
        assert each.longest == max(lengths[position] for position in each.members)
        assert each.padded_tokens <= limit or len(each.members) == 1


@given(lengths=LENGTHS, limit=LIMIT, cost=COST)
def test_passes_have_disjoint_ranges_of_lengths(lengths: list[int], limit: int, cost: int) -> None:
    in_order = [
        lengths[position] for each in plan(lengths, limit, cost) for position in each.members
    ]

    assert in_order == sorted(lengths)


@given(lengths=LENGTHS, limit=LIMIT, cost=COST)
def test_results_return_to_the_places_of_their_sequences(
    lengths: list[int], limit: int, cost: int
) -> None:
    passes = plan(lengths, limit, cost)
    computed = [lengths[position] for each in passes for position in each.members]

    assert [computed[place] for place in unplan(passes)] == lengths


@given(lists=st.lists(st.lists(st.integers())))
def test_splitting_undoes_joining(lists: list[list[int]]) -> None:
    joined = [value for values in lists for value in values]

    assert split(joined, [len(values) for values in lists]) == lists


def test_a_long_sequence_causes_no_padding_of_short_ones() -> None:
    passes = plan([512] + [30] * 100, forward_tokens_max=4_096, pass_cost_tokens=100)

    assert [each.padded_tokens for each in passes] == [3_000, 512]


def cost_of(lengths: list[int], passes: Sequence[Sequence[int]], cost: int) -> int:
    return sum(max(lengths[one] for one in each) * len(each) + cost for each in passes)


@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=8), cost=COST)
def test_no_other_partition_costs_less(lengths: list[int], cost: int) -> None:
    ordered = sorted(range(len(lengths)), key=lambda one: lengths[one])
    found = [each.members for each in plan(lengths, 10_000, cost)]

    ways = []
    for cuts in product([False, True], repeat=len(lengths) - 1):
        edges = [0, *(place for place, cut in enumerate(cuts, start=1) if cut), len(lengths)]
        ways.append([ordered[start:end] for start, end in pairwise(edges)])
    assert cost_of(lengths, found, cost) == min(cost_of(lengths, way, cost) for way in ways)


def test_a_batch_for_a_gpu_has_little_padding() -> None:
    """490 pairs with MS MARCO's lengths. Cut only by the limit, padding would add half again."""
    chance = random.Random(7)
    lengths = [round(min(400, max(16, chance.lognormvariate(4.14, 0.35)))) for _ in range(490)]

    passes = plan(lengths, 32_768, 1_024)

    assert sum(each.padded_tokens for each in passes) < 1.2 * sum(lengths)
    assert len(passes) <= 8
