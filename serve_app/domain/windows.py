"""Divide the tokens of a long document into overlapping windows. Pure functions.

    tokens   |0 ------------------------------------------------ n|
    windows  |------- size -------|
                            |------- size -------|
                                              |------- ... ----- n|

Neighbouring windows share a quarter of their tokens, so that a sentence at a border is whole in one
of them. A window leaves a sixteenth of the room free, because its text is tokenized again alone: a
word that is cut at a border can then have a few more tokens than before.
"""

OVERLAP_DIVISOR = 4
SPARE_DIVISOR = 16


def plan(tokens: int, room: int) -> list[range]:
    """Return the tokens of each window of a document, of which ``room`` tokens fit the model."""
    assert room >= 1
    if tokens <= room:
        return [range(tokens)]
    size, stride = _size_and_stride(room)
    starts = range(0, tokens - size + stride, stride)
    return [range(start, min(tokens, start + size)) for start in starts]


def count(tokens: int, room: int) -> int:
    """Return the number of windows of `plan`. It never falls when ``tokens`` rises."""
    assert room >= 1
    if tokens <= room:
        return 1
    size, stride = _size_and_stride(room)
    return 1 + -(-(tokens - size) // stride)


def _size_and_stride(room: int) -> tuple[int, int]:
    size = room - room // SPARE_DIVISOR
    return size, size - size // OVERLAP_DIVISOR
