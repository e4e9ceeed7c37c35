"""Which sequences share a forward pass, and where their results belong. Pure: lengths in.

A padded pass costs its longest sequence times their number, so sequences of like length belong
together, and passes are kept small: a few thousand tokens stay in a CPU's cache.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ForwardPass:
    """Sequences that are padded to one length and computed together."""

    members: tuple[int, ...]
    """Positions in the list that was planned, shortest sequence first."""

    longest: int
    """Tokens each member is padded to."""

    @property
    def padded_tokens(self) -> int:
        return self.longest * len(self.members)


def plan(lengths: Sequence[int], forward_tokens_max: int) -> list[ForwardPass]:
    """Cut sequences, sorted by length, into passes of at most ``forward_tokens_max``.

    Shortest first, so one long sequence never pads many short ones to its own length. A sequence
    that is longer than the limit travels alone. Every sequence is in exactly one pass.

    Args:
        lengths: Tokens of each sequence, 1 or more, in any order.
    """
    assert all(length >= 1 for length in lengths)
    passes: list[ForwardPass] = []
    members: list[int] = []
    for position in sorted(range(len(lengths)), key=lambda position: lengths[position]):
        if members and lengths[position] * (len(members) + 1) > forward_tokens_max:
            passes.append(ForwardPass(tuple(members), lengths[members[-1]]))
            members = []
        members.append(position)
    if members:
        passes.append(ForwardPass(tuple(members), lengths[members[-1]]))
    return passes


def unplan(passes: Sequence[ForwardPass]) -> list[int]:
    """For each sequence, in the planned order, where its result stands once all passes' results
    are laid end to end."""
    places = [0] * sum(len(forward_pass.members) for forward_pass in passes)
    for row, position in enumerate(
        position for forward_pass in passes for position in forward_pass.members
    ):
        places[position] = row
    return places


def split(values: Iterable[T], counts: Sequence[int]) -> list[list[T]]:
    """Cut ``values`` into consecutive lists of ``counts`` each; the counts use them all up."""
    rest = iter(values)
    lists = [[next(rest) for _ in range(count)] for count in counts]
    assert next(rest, None) is None
    return lists
