"""Divide the tokens of a long document into overlapping windows. Pure.

    tokens   |0 ------------------------------------------------ n|
    windows  |------- size -------|
                            |------- size -------|
                                              |------- ... ----- n|

Neighbours share a quarter of their tokens, so that a sentence at a border is whole in one of them.
A sixteenth of the room stays free: each window's text is tokenized again, and a word that is cut at
its border can then have more tokens.
"""

OVERLAP_DIVISOR = 4
SPARE_DIVISOR = 16


def plan(tokens: int, room: int) -> list[range]:
    """Return the tokens of each window; ``room`` tokens of the document fit the model."""
    assert room >= 1
    if tokens <= room:
        return [range(tokens)]
    size, stride = _size_and_stride(room)
    starts = range(0, tokens - size + stride, stride)
    return [range(start, min(tokens, start + size)) for start in starts]


def count(tokens: int, room: int) -> int:
    """Return the number of windows, which never falls when ``tokens`` rises."""
    assert room >= 1
    if tokens <= room:
        return 1
    size, stride = _size_and_stride(room)
    return 1 + -(-(tokens - size) // stride)


def _size_and_stride(room: int) -> tuple[int, int]:
    size = room - room // SPARE_DIVISOR
    return size, size - size // OVERLAP_DIVISOR
