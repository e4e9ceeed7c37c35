"""How a job is cut into portions. Pure: no clock, no asyncio.

Pairs are sorted by length, so that a portion's pairs pad to nearly the same length, and cut where
the tokens are: with portions of near-equal cost, Ray's counts of requests per replica mean
something.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from serve_app.domain.model import Pair, Portion
from serve_app.domain.units import RequestId, Tokens


@dataclass(frozen=True, slots=True)
class CutPortion:
    """A portion, and where its logits belong."""

    portion: Portion
    indices: tuple[int, ...]
    """The document index of each of the portion's pairs."""


def cut(request_id: RequestId, pairs: Sequence[Pair], tokens_max: Tokens) -> list[CutPortion]:
    """Cut ``pairs`` into few near-equal portions of at most ``tokens_max`` tokens.

    A single pair longer than ``tokens_max`` makes a portion of its own. Every pair is in exactly
    one portion; portions run from short pairs to long ones.
    """
    assert pairs
    ordered = sorted(pairs, key=lambda pair: (pair.tokens, pair.index))
    total = sum(pair.tokens for pair in ordered)
    count = -(-total // tokens_max)
    while count < len(ordered):
        groups = _split_evenly(ordered, total, count)
        if all(_fits(group, tokens_max) for group in groups):
            break
        count += 1 + count // 8  # In steps, or long pairs would make this quadratic.
    else:
        groups = [[pair] for pair in ordered]
    return [_portion(request_id, group) for group in groups]


def _split_evenly(ordered: Sequence[Pair], total: int, count: int) -> list[list[Pair]]:
    """Each pair goes to the ``count``-th part of the line of tokens that holds its middle."""
    groups: list[list[Pair]] = [[] for _ in range(count)]
    before = 0
    for pair in ordered:
        middle = 2 * before + pair.tokens
        groups[middle * count // (2 * total)].append(pair)
        before += pair.tokens
    return [group for group in groups if group]


def _fits(group: Sequence[Pair], tokens_max: Tokens) -> bool:
    return len(group) == 1 or sum(pair.tokens for pair in group) <= tokens_max


def _portion(request_id: RequestId, group: Sequence[Pair]) -> CutPortion:
    portion = Portion(
        request_id=request_id,
        input_ids=b"".join(pair.input_ids for pair in group),
        lengths=tuple(pair.tokens for pair in group),
        query_tokens=tuple(pair.query_tokens for pair in group),
    )
    return CutPortion(portion, tuple(pair.index for pair in group))
