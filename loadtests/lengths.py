"""Lengths of pairs in tokens: a distribution, one length, or the lengths in a file."""

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

QUERY_WORDS = (3, 10)
TOKENS_PER_WORD = 1.01
QUERY_TOKENS_MEAN = sum(QUERY_WORDS) / 2 * TOKENS_PER_WORD
SPECIAL_TOKENS = 3
OTHER_TOKENS = QUERY_TOKENS_MEAN + SPECIAL_TOKENS
"""Mean number of a pair's tokens that do not belong to its document."""

MS_MARCO = "62,114"
"""Median and 95th percentile of query-passage pairs on judged passage collections."""

DOCUMENT_TOKENS_RANGE = (20, 400)
NORMAL_95 = 1.6449


class Lengths(Protocol):
    """Where the lengths of documents come from."""

    def draw(self, source: random.Random) -> float:
        """Return the tokens of a document."""


class LogNormalLengths:
    """Log-normal documents, clipped to 20..400 tokens. The range is extended to the documents'
    median, and to twice their 95th percentile, if these lie outside of it.

    Args:
        median: Median length of pairs, in tokens.
        percentile_95: Length that 95 % of the pairs do not exceed.
    """

    def __init__(self, median: float, percentile_95: float) -> None:
        document, document_95 = median - OTHER_TOKENS, percentile_95 - OTHER_TOKENS
        if document < 1 or document_95 < document:
            raise ValueError(
                f"pairs need a median above {OTHER_TOKENS + 1:.0f} tokens,"
                " and a 95th percentile that is not smaller"
            )
        low, high = DOCUMENT_TOKENS_RANGE
        self._range = (min(low, document), max(high, 2 * document_95))
        self._mu = math.log(document)
        self._sigma = math.log(document_95 / document) / NORMAL_95

    def draw(self, source: random.Random) -> float:
        low, high = self._range
        return min(max(source.lognormvariate(self._mu, self._sigma), low), high)


class GivenLengths:
    """Lengths of pairs, drawn with equal probability."""

    def __init__(self, pair_tokens: Sequence[float]) -> None:
        if not pair_tokens or min(pair_tokens) < OTHER_TOKENS + 1:
            raise ValueError(f"a pair has at least {OTHER_TOKENS + 1:.0f} tokens")
        self._documents = [tokens - OTHER_TOKENS for tokens in pair_tokens]

    def draw(self, source: random.Random) -> float:
        return source.choice(self._documents)


def lengths(text: str) -> Lengths:
    """Return the lengths that an option names.

    Args:
        text: One length such as ``512``, the median and the 95th percentile such as ``62,114``, or
            the name of a file with one length per line.

    Raises: ValueError: It is none of these, or a length is too small.
    """
    parts = text.split(",")
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        return GivenLengths(_lines(Path(text)))
    match numbers:
        case [tokens]:
            return GivenLengths([tokens])
        case [median, percentile_95]:
            return LogNormalLengths(median, percentile_95)
        case _:
            raise ValueError(f"{text!r} is neither a length, nor a median and a 95th percentile")


def _lines(file: Path) -> list[float]:
    try:
        return [float(line) for line in file.read_text(encoding="utf-8").split()]
    except (OSError, ValueError) as error:
        raise ValueError(f"the file of lengths {file} cannot be read: {error}") from None
