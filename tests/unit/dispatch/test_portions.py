"""Portions hold every pair once, stay under their limit, and cost nearly the same."""

from itertools import chain

from hypothesis import given
from hypothesis import strategies as st

from serve_app.dispatch.portions import cut
from serve_app.domain.model import INPUT_ID_BYTES
from serve_app.domain.tokenized import TokenizedJob
from serve_app.domain.units import RequestId, Tokens
from tests.support.fakes import a_pair

R1 = RequestId("r1")


@given(
    lengths=st.lists(st.integers(1, 512), min_size=1, max_size=300),
    tokens_max=st.integers(16, 5_000),
)
def test_every_pair_is_in_one_portion_and_no_portion_is_too_large(
    lengths: list[int], tokens_max: int
) -> None:
    pairs = [a_pair(index, tokens) for index, tokens in enumerate(lengths)]

    portions = cut(R1, TokenizedJob.of(pairs), Tokens(tokens_max))

    assert sorted(chain.from_iterable(each.indices for each in portions)) == list(
        range(len(lengths))
    )
    for each in portions:
        portion = each.portion()
        assert portion.tokens == each.tokens
        assert each.tokens <= tokens_max or len(each.indices) == 1
        assert portion.lengths == tuple(lengths[index] for index in each.indices)
        assert portion.input_ids == b"".join(pairs[index].input_ids for index in each.indices)
        assert len(portion.input_ids) == sum(portion.lengths) * INPUT_ID_BYTES


def test_portions_cost_nearly_the_same_and_run_from_short_to_long() -> None:
    lengths = [37 + index % 78 for index in range(1_000)]  # 37 to 114 tokens, as in MS MARCO.
    pairs = [a_pair(index, tokens) for index, tokens in enumerate(lengths)]

    portions = cut(R1, TokenizedJob.of(pairs), Tokens(4_096))

    costs = [each.tokens for each in portions]
    assert max(costs) - min(costs) <= 2 * max(lengths)
    assert len(portions) <= sum(lengths) // 4_096 + 2
    joined = list(chain.from_iterable(each.portion().lengths for each in portions))
    assert joined == sorted(lengths)


def test_portions_are_nearly_full_where_a_pair_is_an_eighth_of_one() -> None:
    pairs = [a_pair(index, 37 + index % 64) for index in range(500)]

    costs = [each.tokens for each in cut(R1, TokenizedJob.of(pairs), Tokens(512))]

    assert len(costs) <= 1.1 * sum(costs) / 512
    assert min(costs[:-1]) > 512 - 100 - 37


def test_a_job_that_fits_is_one_portion() -> None:
    (only,) = cut(R1, TokenizedJob.of([a_pair(0, 10), a_pair(1, 5)]), Tokens(15))

    assert list(only.indices) == [1, 0]


def test_pairs_over_half_the_limit_each_get_a_portion_quickly() -> None:
    pairs = [a_pair(index, 260) for index in range(1_000)]

    assert len(cut(R1, TokenizedJob.of(pairs), Tokens(512))) == 1_000
