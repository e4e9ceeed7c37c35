"""The leading tokens of texts, without reading more of a long text than settles them.

    window ─> tokens ─┬─ enough ──> the leading ones
      ^               └─ too few ─┐
      └── GROWTH times as large <─┘  in the end the whole text

The result is the one of tokenizing everything. Which tokens of a window are also the whole text's
depends on where the window ends:

*At a blank*, ahead of all the white space there: every word in the window is whole, and words are
tokenized one by one, in every family. The last `FirstWindow.slack` tokens are left out all the
same, for tokenizers that look past a blank: added tokens with blanks inside, or line ends that go
with the punctuation before them. A blank is one only if this tokenizer splits words there, which is
asked of the tokenizer itself; a vertical tab, say, vanishes in BERT and joins its neighbours.

*Inside a word* (Chinese or Japanese, a base64 blob), where a cut can change what is before it, only
for WordPiece: only the cut word may change, even to a single ``[UNK]``. Its part in the window has
at most as many tokens as a word may have characters, so that many more are left out.

A WordPiece word in ASCII letters and digits that is too long to be known stays so when shortened.

What remains to be read whole: text that gives hardly any tokens (white space, control characters,
one word in other letters that WordPiece does not know), and text without blanks for others. Of such
a text no more than `FirstWindow.most` characters are read, as if it ended there: 128 for each token
that the model takes, of 512. One text of megabytes would keep a thread from all others for seconds.
"""

import re
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

SLICE_CHARACTERS = 100_000
"""Texts encoded at a time: the Rust encodings cost some 50 times the text while they live, and
whoever comes next waits for the threads until a slice is done."""

SHORT_CHARACTERS = 1_000
"""A text that the calling thread tokenizes by itself in a fraction of a millisecond."""

BLANKS = " \n\t\r"
WHITE_SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
"""Unicode's White_Space, as in Rust; `str.rstrip` by itself also takes U+001C to U+001F."""

LETTERS = string.ascii_letters + string.digits

GROWTH = 16

LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class FirstWindow:
    """How many characters are read at first. Small ones are for tests: they hit more edges."""

    characters_per_token: int = 8
    """English has 4 to 5; most texts should be settled at once."""

    characters_min: int = 512

    slack: int = 16
    """Tokens left out at the end of every window."""

    characters_max: int = 65_536

    def size(self, tokens: int) -> int:
        return max(self.characters_min, self.characters_per_token * (tokens + self.slack))

    def most(self, tokens: int) -> int:
        """Characters of a text that are ever read; for models of long texts it is four windows."""
        return max(self.characters_max, 4 * self.size(tokens))


@dataclass(frozen=True, slots=True)
class Window:
    """The beginning of a text, and how far its tokens can be trusted."""

    text: str
    unsure: int | None
    """How many tokens at its end may differ from the whole text's; ``None``: it is the whole."""


UNCUT = Window("", unsure=1)
"""There is nowhere to cut: a larger window is needed."""


class Beginnings:
    """Tokenizes beginnings with one Rust tokenizer. Thread-safe: nothing changes once built."""

    def __init__(self, backend: Any, first: FirstWindow | None = None) -> None:
        self._backend = backend
        self._first = first or FirstWindow()
        self._slack = self._first.slack
        self._blanks = [blank for blank in BLANKS if len(self._words(f"a{blank}b")) > 1]
        self._word_max: int = getattr(backend.model, "max_input_chars_per_word", 0)
        """WordPiece: a word of more characters is one unknown token. 0 elsewhere."""

        self._unknown_words = self._find_unknown_words()

    def encode(self, texts: Sequence[str], tokens: int) -> Iterator[list[int]]:
        """The ids of each text, in order, at most the ``tokens`` leading ones."""
        size, most = self._first.size(tokens), self._first.most(tokens)
        for some in _slices(texts, size):
            yield from self._encode_slice([text[:most] for text in some], tokens, size)

    def may_read(self, text: str, tokens: int) -> bool:
        """Whether no character of ``text`` lies too far back to be read for ``tokens``."""
        return len(text) <= self._first.most(tokens)

    def count(self, text: str) -> int:
        """How many tokens ``text`` has. A short one waits for no thread that batches share."""
        if len(text) <= SHORT_CHARACTERS:
            # A batch would queue behind all that is being tokenized.
            return len(self._backend.encode(_well_formed(text), add_special_tokens=False).ids)
        return len(next(self.encode_whole([text])))

    def encode_whole(self, texts: Sequence[str]) -> Iterator[list[int]]:
        """All ids of each text, in order."""
        for some in _slices(texts):
            # encode_batch_fast gives the same ids; it only leaves out the character offsets.
            for encoding in self._backend.encode_batch_fast(
                [_well_formed(text) for text in some], add_special_tokens=False
            ):
                yield encoding.ids

    def _encode_slice(self, texts: Sequence[str], tokens: int, size: int) -> list[list[int]]:
        settled: dict[int, list[int]] = {}
        waiting = dict(enumerate(texts))
        while waiting:
            windows = {index: self._window(text, size) for index, text in waiting.items()}
            encoded = self.encode_whole([window.text for window in windows.values()])
            for (index, window), ids in zip(windows.items(), encoded, strict=True):
                if window.unsure is None or len(ids) >= tokens + window.unsure:
                    settled[index] = ids[:tokens]
            waiting = {
                index: self._shorten(text)
                for index, text in waiting.items()
                if index not in settled
            }
            size *= GROWTH
        return [settled[index] for index in range(len(texts))]

    def _window(self, text: str, size: int) -> Window:
        if len(text) <= size:
            return Window(text, unsure=None)
        blank = max((text.rfind(blank, 0, size) for blank in self._blanks), default=0)
        words = text[: max(blank, 0)].rstrip(WHITE_SPACE)
        # A blank near the beginning leaves too little: a title before Chinese text.
        if len(words) >= size // 2:
            return Window(words, unsure=self._slack)
        if self._word_max:
            return Window(text[:size], unsure=self._slack + self._word_max)
        return UNCUT

    def _shorten(self, text: str) -> str:
        """The same tokens from fewer characters: a hex dump of megabytes is one ``[UNK]``."""
        if not self._unknown_words:
            return text
        return self._unknown_words.sub(lambda run: run[0][: self._word_max + 1], text)

    def _find_unknown_words(self) -> re.Pattern[str] | None:
        """Runs of characters that are one word, or part of one, and too long to be known.

        ``None`` where the tokenizer has no such limit or treats these characters in another way.
        """
        run = LETTERS * (self._word_max // len(LETTERS) + 2)
        added = [token.content for token in self._backend.get_added_tokens_decoder().values()]
        if (
            not self._word_max
            or [len(word) for word in self._words(run)] != [len(run)]
            # Not a batch: that would start the threads; see `limit_threads`.
            or len(self._backend.encode(run, add_special_tokens=False).ids) != 1
            or any(token[:1].isalnum() or token[-1:].isalnum() for token in added)
        ):
            return None
        return re.compile(f"[{LETTERS}]{{{self._word_max + 2},}}")

    def _words(self, text: str) -> list[str]:
        splitter = self._backend.pre_tokenizer
        normalized = self._normalized(text)
        if splitter is None:
            return [normalized]
        return [word for word, _ in splitter.pre_tokenize_str(normalized)]

    def _normalized(self, text: str) -> str:
        normalizer = self._backend.normalizer
        text = _well_formed(text)
        return text if normalizer is None else str(normalizer.normalize_str(text))


def _slices(texts: Sequence[str], read: int | None = None) -> Iterator[list[str]]:
    """Consecutive texts of at most `SLICE_CHARACTERS` together; a longer one comes alone.

    Of each, ``read`` characters count at most.
    """
    some: list[str] = []
    characters = 0
    for text in texts:
        length = len(text) if read is None else min(len(text), read)
        if some and characters + length > SLICE_CHARACTERS:
            yield some
            some, characters = [], 0
        some.append(text)
        characters += length
    if some:
        yield some


def _well_formed(text: str) -> str:
    """JSON can carry half a surrogate pair; UTF-8, and so the Rust tokenizer, cannot."""
    return LONE_SURROGATE.sub("\ufffd", text) if LONE_SURROGATE.search(text) else text
