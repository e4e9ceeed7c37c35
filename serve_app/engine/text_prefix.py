"""Compute the leading tokens of texts, reading no more of a long text than they need.

    window ─> tokens ─┬─ enough ──> the leading ones
      ^               └─ too few ─┐
      └── GROWTH times as large <─┘  finally the whole text

The result is the same as from the whole text. The end of the window determines which of its tokens
are also tokens of the whole text:

*At a blank*, before all white space there: every word in the window is whole, and all families
tokenize words one by one. The last `FirstWindow.slack` tokens are still left out, for tokenizers
that look past a blank: added tokens with blanks inside, or line ends that join the punctuation
before them. A blank only counts if this tokenizer splits words there, which is tested. BERT, for
example, drops a vertical tab and joins its neighbours.

*Inside a word* (Chinese or Japanese, a base64 blob): a cut can change the tokens before it, so only
WordPiece allows it. There only the cut word may change, even to a single ``[UNK]``. The word's part
in the window has at most as many tokens as a word may have characters, so that many more are left
out.

A WordPiece word of ASCII letters and digits that is too long to be known stays unknown when it is
shortened.

Some texts would have to be read whole: text that gives hardly any tokens (white space, control
characters, one word in other letters that WordPiece does not know), and for other tokenizers text
without blanks. At most `FirstWindow.most` characters of such a text are read, as if it ended there:
for a model of 512 tokens, 128 for each. Without this limit one text of megabytes would occupy a
thread for seconds.
"""

import re
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

SLICE_CHARACTERS = 100_000
"""Characters encoded in one call. The Rust encodings take about 50 times the text's memory, and
other callers wait for the threads until a call is done."""

SHORT_CHARACTERS = 1_000
"""Texts up to this length are tokenized on the calling thread, in a fraction of a millisecond."""

BLANKS = " \n\t\r"
WHITE_SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
"""Unicode's White_Space, as in Rust; plain `str.rstrip` also strips U+001C to U+001F."""

LETTERS = string.ascii_letters + string.digits

GROWTH = 16

LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class FirstWindow:
    """Size of the first window in characters. Tests use small ones, which hit more edge cases."""

    characters_per_token: int = 8
    """English has 4 to 5; most texts should need one window only."""

    characters_min: int = 512

    slack: int = 16
    """Tokens left out at the end of every window."""

    characters_max: int = 65_536

    def size(self, tokens: int) -> int:
        return max(self.characters_min, self.characters_per_token * (tokens + self.slack))

    def most(self, tokens: int) -> int:
        """Most characters of a text that are read; four windows for models of long texts."""
        return max(self.characters_max, 4 * self.size(tokens))


@dataclass(frozen=True, slots=True)
class Window:
    """The beginning of a text, and how many of its tokens are reliable."""

    text: str
    unsure: int | None
    """Tokens at its end that may differ from the whole text's; ``None`` for the whole text."""


UNCUT = Window("", unsure=1)
"""No place to cut was found: a larger window is needed."""


class Beginnings:
    """Tokenizes the beginnings of texts. Thread-safe: nothing changes after construction."""

    def __init__(self, backend: Any, first: FirstWindow | None = None) -> None:
        self._backend = backend
        self._first = first or FirstWindow()
        self._slack = self._first.slack
        self._blanks = [blank for blank in BLANKS if len(self._words(f"a{blank}b")) > 1]
        self._word_max: int = getattr(backend.model, "max_input_chars_per_word", 0)
        """WordPiece: a word of more characters is one unknown token. 0 for other tokenizers."""

        self._unknown_words = self._find_unknown_words()

    def encode(self, texts: Sequence[str], tokens: int) -> Iterator[list[int]]:
        """Yield the ids of each text, in order, at most the ``tokens`` leading ones."""
        size, most = self._first.size(tokens), self._first.most(tokens)
        for some in _slices(texts, size):
            yield from self._encode_slice([text[:most] for text in some], tokens, size)

    def may_read(self, text: str, tokens: int) -> bool:
        """Whether ``text`` is short enough to be read to its end if ``tokens`` are needed."""
        return len(text) <= self._first.most(tokens)

    def count(self, text: str) -> int:
        if len(text) <= SHORT_CHARACTERS:
            # A batch would wait for the shared threads behind all other batches.
            return len(self._backend.encode(_well_formed(text), add_special_tokens=False).ids)
        return len(next(self.encode_whole([text])))

    def encode_whole(self, texts: Sequence[str]) -> Iterator[list[int]]:
        for some in _slices(texts):
            # encode_batch_fast returns the same ids and only leaves out the character offsets.
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
        # The last blank may be too near the beginning: a title before Chinese text.
        if len(words) >= size // 2:
            return Window(words, unsure=self._slack)
        if self._word_max:
            return Window(text[:size], unsure=self._slack + self._word_max)
        return UNCUT

    def _shorten(self, text: str) -> str:
        """Return a shorter text with the same tokens: megabytes of hex digits are one ``[UNK]``."""
        if not self._unknown_words:
            return text
        return self._unknown_words.sub(lambda run: run[0][: self._word_max + 1], text)

    def _find_unknown_words(self) -> re.Pattern[str] | None:
        """Return a pattern of character runs within a word that are too long to be known.

        ``None`` if the tokenizer has no such limit or treats these characters differently.
        """
        run = LETTERS * (self._word_max // len(LETTERS) + 2)
        added = [token.content for token in self._backend.get_added_tokens_decoder().values()]
        if (
            not self._word_max
            or [len(word) for word in self._words(run)] != [len(run)]
            # Not a batch, which would start the threads; see `limit_threads`.
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
    """Yield consecutive texts of at most `SLICE_CHARACTERS` together; a longer one comes alone.

    At most ``read`` characters of each text count.
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
    """Replace lone surrogates, which JSON can carry but UTF-8 and the Rust tokenizer cannot."""
    return LONE_SURROGATE.sub("\ufffd", text) if LONE_SURROGATE.search(text) else text
