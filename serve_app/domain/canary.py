"""Choose the requests that a canary scores. Pure."""

from hashlib import sha256

_BITS = 53
"""Bits of a float's fraction, so that the quotient below is exact and never 1."""


def is_chosen(share: float, *names: str) -> bool:
    """Return whether ``names`` belong to a ``share`` (0 to 1) of all names.

    The answer depends on nothing else, and a larger share only adds names.
    """
    digest = sha256("\0".join(names).encode()).digest()
    position = (int.from_bytes(digest[:8]) >> (64 - _BITS)) / (1 << _BITS)
    return position < share
