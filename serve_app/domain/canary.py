"""Choose the requests that a canary scores, and compare its ranking with the live one. Pure."""

from bisect import bisect, insort
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from serve_app.domain.units import ModelId, Moment, RequestId, Revision, Seconds, Tokens

_BITS = 53
"""Bits of a float's fraction: the quotient is exact and never 1."""


def is_chosen(share: float, *names: str) -> bool:
    """Return whether ``names`` belong to a ``share`` (0 to 1) of all names.

    A larger share only adds names.
    """
    digest = sha256("\0".join(names).encode()).digest()
    position = (int.from_bytes(digest[:8]) >> (64 - _BITS)) / (1 << _BITS)
    return position < share


@dataclass(frozen=True, slots=True)
class Comparison:
    """A request that the live revision answered and the canary scored, too."""

    request_id: RequestId
    model: ModelId
    live: Revision
    canary: Revision
    compared_at: Moment
    documents: int
    overlap_at_10: float
    kendall_tau: float
    live_run_s: Seconds
    canary_run_s: Seconds
    live_tokens: Tokens
    canary_tokens: Tokens


DEPTH = 10


def overlap_at_10(ours: Sequence[int], theirs: Sequence[int]) -> float:
    """Return the share of the ten best documents that both have; 1 if there are at most ten."""
    best = set(ours[:DEPTH])
    return len(best & set(theirs[:DEPTH])) / len(best)


def kendall_tau(ours: Sequence[int], theirs: Sequence[int]) -> float:
    """Return Kendall's tau, from -1 (reversed) to 1 (equal, or a single document)."""
    places = {document: place for place, document in enumerate(ours)}
    before: list[int] = []
    swapped = 0
    for document in theirs:
        place = places[document]
        swapped += len(before) - bisect(before, place)
        insort(before, place)
    pairs = len(ours) * (len(ours) - 1) // 2
    return 1 - 2 * swapped / pairs if pairs else 1.0
