"""Encode texts to token ids, and cut long texts to the part that a model can read.

`cut` keeps 16 characters for each token that is needed. English has 4 to 5 characters a token, and
source code about 6. A text with more than 16, such as a table that is mostly blanks, is encoded as
if it ended at the cut.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from serve_app.domain.model import INPUT_ID_BYTES
from serve_app.engine.word_cache import WordCache, ids_as_bytes, splits_at_words

CHARACTERS_PER_TOKEN = 16

SLICE_CHARACTERS = 100_000
"""Characters encoded in one call, which takes about 50 times their memory and keeps other callers
waiting."""

SHORT_CHARACTERS = 1_000
"""Texts up to this length together are always encoded on the calling thread."""

LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def cut(text: str, tokens: int) -> str:
    """Return the beginning of ``text`` that is read for ``tokens`` tokens, cut at a blank if any.

    Only its second half is searched for a blank, because in Chinese text the only one may be
    early, after the title.
    """
    limit = CHARACTERS_PER_TOKEN * tokens
    if len(text) <= limit:
        return text
    blank = max(text.rfind(blank, limit // 2, limit) for blank in " \n")
    return text[: blank if blank >= 0 else limit]


class TextEncoder:
    """Encodes texts without special tokens, as little-endian int32. Thread-safe."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._words = WordCache(backend) if splits_at_words(backend) else None

    def count(self, text: str) -> int:
        pieces = [piece for _, piece in _pieces(text)]
        return sum(len(ids) for ids in self.encode(pieces)) // INPUT_ID_BYTES

    def offsets(self, text: str, tokens_max: int) -> npt.NDArray[np.int32]:
        """Return the start and end of each token of ``text`` in code points, as (T, 2).

        Reading stops after ``tokens_max`` tokens or a few more.
        """
        read = [np.empty((0, 2), np.int32)]
        tokens = 0
        for start, piece in _pieces(text):
            (encoding,) = self._backend.encode_batch(
                [_well_formed(piece)], add_special_tokens=False
            )
            read.append(np.array(encoding.offsets, np.int32).reshape(-1, 2) + np.int32(start))
            tokens += len(read[-1])
            if tokens >= tokens_max:
                break
        return np.concatenate(read)

    def encode(self, texts: Sequence[str]) -> Iterator[bytes]:
        if self._words is not None or sum(map(len, texts)) <= SHORT_CHARACTERS:
            yield from map(self._encode_here, texts)
            return
        for some in _slices(texts):
            # encode_batch_fast only leaves out the character offsets.
            for encoding in self._backend.encode_batch_fast(
                [_well_formed(text) for text in some], add_special_tokens=False
            ):
                yield ids_as_bytes(encoding.ids)

    def _encode_here(self, text: str) -> bytes:
        """Encode on the calling thread; a batch would wait for the shared threads."""
        text = _well_formed(text)
        if self._words is not None:
            return self._words.encode(text)
        return ids_as_bytes(self._backend.encode(text, add_special_tokens=False).ids)


def tokens_at_most(text: str) -> int:
    """Return an upper bound of the tokens of ``text``, without encoding it.

    Tokenizers have at most one token for each byte of the text as they normalize it, and one more
    where a text begins. The composed forms of Unicode are never the longest.
    """
    pieces = 1 + len(text) // (SLICE_CHARACTERS // 2)
    if text.isascii():
        return len(text) + pieces
    forms = (text, unicodedata.normalize("NFD", text), unicodedata.normalize("NFKD", text))
    cased = (cased for form in forms for cased in (form, form.lower()))
    return max(len(form.encode("utf-8", "surrogatepass")) for form in cased) + pieces


def _pieces(text: str) -> Iterator[tuple[int, str]]:
    """Yield the start and the text of each part that is encoded in one call."""
    start = 0
    while start < len(text):
        rest = text[start : start + SLICE_CHARACTERS + 1]
        piece = cut(rest, SLICE_CHARACTERS // CHARACTERS_PER_TOKEN)
        yield start, piece
        start += len(piece)


def _slices(texts: Sequence[str]) -> Iterator[list[str]]:
    """Yield consecutive texts of at most `SLICE_CHARACTERS` together; a longer one comes alone."""
    some: list[str] = []
    characters = 0
    for text in texts:
        if some and characters + len(text) > SLICE_CHARACTERS:
            yield some
            some, characters = [], 0
        some.append(text)
        characters += len(text)
    if some:
        yield some


def _well_formed(text: str) -> str:
    """Replace lone surrogates, which JSON can carry but UTF-8 and the Rust tokenizer cannot."""
    return text if text.isascii() else LONE_SURROGATE.sub("\ufffd", text)
