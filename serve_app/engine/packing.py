"""Assign sequences to forward passes by length, and map results back. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ForwardPass:
    """Sequences that are padded to one length and computed together."""

    members: tuple[int, ...]
    """Positions in the planned list, shortest sequence first."""

    longest: int
    """Tokens to which each member is padded."""

    @property
    def padded_tokens(self) -> int:
        return self.longest * len(self.members)


def plan(
    lengths: Sequence[int], forward_tokens_max: int, pass_cost_tokens: int
) -> list[ForwardPass]:
    """Cut sequences, sorted by length, into the groups that cost least; see `docs/decisions/0008`.

    Each group becomes one pass, or as many as the limit requires. A pass costs its tokens, padding
    included, plus ``pass_cost_tokens``. A sequence longer than ``forward_tokens_max`` runs alone.
    """
    if not lengths:
        return []
    assert min(lengths) >= 1
    distinct, counts = np.unique(lengths, return_counts=True)
    ends = np.concatenate(([0], np.cumsum(counts)))
    # costs[n]: least cost of the sequences with the n smallest lengths. Their last group begins at
    # length number starts[n].
    costs, starts = np.zeros(len(distinct) + 1), [0] * (len(distinct) + 1)
    for group_end, longest in enumerate(distinct, start=1):
        members = ends[group_end] - ends[:group_end]
        passes = -(-members // max(1, forward_tokens_max // longest))
        options = costs[:group_end] + longest * members + pass_cost_tokens * passes
        starts[group_end] = int(options.argmin())
        costs[group_end] = options[starts[group_end]]

    ordered = sorted(range(len(lengths)), key=lambda position: lengths[position])
    groups, group_end = [], len(distinct)
    while group_end:
        groups.append(ordered[ends[starts[group_end]] : ends[group_end]])
        group_end = starts[group_end]
    return [
        ForwardPass(tuple(members), lengths[members[-1]])
        for group in reversed(groups)
        for members in _evenly(group, max(1, forward_tokens_max // lengths[group[-1]]))
    ]


def _evenly(group: list[int], members_max: int) -> Iterator[list[int]]:
    """Yield as few slices as possible, of nearly equal size."""
    slices = -(-len(group) // members_max)
    for number in range(slices):
        yield group[number * len(group) // slices : (number + 1) * len(group) // slices]


def unplan(passes: Sequence[ForwardPass]) -> list[int]:
    """Return the row of each sequence's result in the concatenated results of all passes."""
    places = [0] * sum(len(forward_pass.members) for forward_pass in passes)
    for row, position in enumerate(
        position for forward_pass in passes for position in forward_pass.members
    ):
        places[position] = row
    return places


def split(values: Iterable[T], counts: Sequence[int]) -> list[list[T]]:
    """Cut ``values`` into consecutive lists of ``counts`` items, which must use up all values."""
    rest = iter(values)
    lists = [[next(rest) for _ in range(count)] for count in counts]
    assert next(rest, None) is None
    return lists
