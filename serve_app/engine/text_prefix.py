"""Encode texts to token ids, and cut long texts to the part that a model can read.

A model reads a few hundred tokens of a text, so encoding all of a long text is wasted work: one
text of megabytes would occupy a thread for seconds. `cut` keeps 16 characters for each token that
is needed. English has 4 to 5 characters a token, and source code about 6, so their tokens are the
same with and without the cut. A text of more than 16 characters a token, such as a table that is
mostly blanks, is encoded as if it ended at the cut.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

CHARACTERS_PER_TOKEN = 16

SLICE_CHARACTERS = 100_000
"""Characters encoded in one call. The Rust encodings take about 50 times the text's memory, and
other callers wait for the threads until a call is done."""

SHORT_CHARACTERS = 1_000
"""Texts up to this length together are tokenized on the calling thread, in a fraction of a
millisecond."""

LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def cut(text: str, tokens: int) -> str:
    """Return the beginning of ``text`` that is read for ``tokens`` tokens, cut at a blank if any.

    The second half of this part is searched for a blank, because a text can have only an early one:
    a title before Chinese text.
    """
    limit = CHARACTERS_PER_TOKEN * tokens
    if len(text) <= limit:
        return text
    blank = max(text.rfind(blank, limit // 2, limit) for blank in " \n")
    return text[: blank if blank >= 0 else limit]


class TextEncoder:
    """Encodes texts without special tokens. Thread-safe: nothing changes after construction."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def count(self, text: str) -> int:
        """Return the number of tokens of ``text``."""
        if len(text) <= SHORT_CHARACTERS:
            return len(self._encode_here(text))
        return len(next(self.encode([text])))

    def encode(self, texts: Sequence[str]) -> Iterator[list[int]]:
        """Yield the ids of each text, in order."""
        if sum(map(len, texts)) <= SHORT_CHARACTERS:
            yield from map(self._encode_here, texts)
            return
        for some in _slices(texts):
            # encode_batch_fast returns the same ids and only leaves out the character offsets.
            for encoding in self._backend.encode_batch_fast(
                [_well_formed(text) for text in some], add_special_tokens=False
            ):
                yield encoding.ids

    def _encode_here(self, text: str) -> list[int]:
        """Encode on the calling thread. A batch would wait for the shared threads."""
        ids: list[int] = self._backend.encode(_well_formed(text), add_special_tokens=False).ids
        return ids


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
    return LONE_SURROGATE.sub("\ufffd", text) if LONE_SURROGATE.search(text) else text
