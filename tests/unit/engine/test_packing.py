"""Every sequence is computed once, within the limit, and its result finds its way back."""

from hypothesis import given
from hypothesis import strategies as st

from serve_app.engine.packing import plan, split, unplan

LENGTHS = st.lists(st.integers(1, 600), max_size=80)
LIMIT = st.integers(16, 2_000)


@given(lengths=LENGTHS, limit=LIMIT)
def test_every_sequence_is_in_exactly_one_pass(lengths: list[int], limit: int) -> None:
    members = [position for each in plan(lengths, limit) for position in each.members]

    assert sorted(members) == list(range(len(lengths)))


@given(lengths=LENGTHS, limit=LIMIT)
def test_a_pass_stays_within_the_limit_unless_it_has_one_sequence(
    lengths: list[int], limit: int
) -> None:
    for each in plan(lengths, limit):
        assert each.longest == max(lengths[position] for position in each.members)
        assert each.padded_tokens <= limit or len(each.members) == 1


@given(lengths=LENGTHS, limit=LIMIT)
def test_passes_never_mix_lengths_that_another_pass_lies_between(
    lengths: list[int], limit: int
) -> None:
    in_order = [lengths[position] for each in plan(lengths, limit) for position in each.members]

    assert in_order == sorted(lengths)


@given(lengths=LENGTHS, limit=LIMIT)
def test_results_return_to_where_their_sequences_came_from(lengths: list[int], limit: int) -> None:
    passes = plan(lengths, limit)
    computed = [lengths[position] for each in passes for position in each.members]

    assert [computed[place] for place in unplan(passes)] == lengths


@given(lists=st.lists(st.lists(st.integers())))
def test_splitting_undoes_joining(lists: list[list[int]]) -> None:
    joined = [value for values in lists for value in values]

    assert split(joined, [len(values) for values in lists]) == lists


def test_one_long_sequence_pads_no_short_one() -> None:
    passes = plan([512] + [30] * 100, forward_tokens_max=4_096)

    assert [each.padded_tokens for each in passes] == [3_000, 512]
