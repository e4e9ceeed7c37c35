"""The beginning of a long text gives the same tokens as all of it."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend

from serve_app.engine.sources import resolve
from serve_app.engine.text_prefix import CHARACTERS_PER_TOKEN, TextEncoder, cut
from serve_app.engine.tokenizer import PairTokenizer, TokenizerFiles
from testkit.reference import job
from testkit.tiny_models import CJK_AND_EMOJI, FAMILIES, WORDS
from testkit.tokenized import pairs_in
from tests.support.varied_pairs import STRANGE

BLANK_LOOKAHEAD = 16
"""Tokens before a cut at a blank that may differ: some tokenizers look past the blank."""

WORD_MAX = 100
"""WordPiece: a longer word is one unknown token, so a cut inside a word can change this many."""

BLANK = st.sampled_from([" ", "\n", "\t", "\r", "\r\n", "  ", "\u3000", "\v", "\x1c", "\x85 "])
WORD = st.one_of(
    st.sampled_from(WORDS),
    st.sampled_from(STRANGE),
    st.sampled_from(CJK_AND_EMOJI),
    st.sampled_from(["a", "é", "e\u0301", "I'll", "...", "\x00", "\u200b", "\u0301", "ﷺ", "½"]),
    st.text(max_size=5),
)


@st.composite
def texts(draw: st.DrawFn) -> str:
    """Return runs of equal and changing words, with or without blanks between them."""
    parts = []
    for _ in range(draw(st.integers(1, 5))):
        words = draw(st.lists(WORD | BLANK, min_size=1, max_size=8))
        between = draw(st.just("") | st.just(" ") | BLANK)
        parts.append(between.join(words * draw(st.sampled_from([1, 2, 7, 40, 150]))))
    return draw(BLANK | st.just("")).join(parts)


@pytest.fixture(scope="module", params=[*FAMILIES, "embedded"])
def files(request: pytest.FixtureRequest, folders: dict[str, Path]) -> TokenizerFiles:
    folder = folders[request.param] if request.param in folders else resolve("embedded", None)
    return TokenizerFiles.read(folder, request.param)


def rust(files: TokenizerFiles) -> Any:
    backend = Backend.from_str(files.backend)
    backend.no_truncation()
    backend.no_padding()
    return backend


@pytest.mark.slow  # Thousands of texts against five tokenizers.
@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(text=texts(), tokens=st.integers(1, 200))
def test_a_cut_changes_only_the_tokens_next_to_it(
    files: TokenizerFiles, text: str, tokens: int
) -> None:
    encoder = TextEncoder(rust(files))
    beginning = cut(text, tokens)

    some, whole = (
        np.frombuffer(ids, dtype="<i4").tolist() for ids in encoder.encode([beginning, text])
    )

    if beginning != text:
        at_blank = text[len(beginning)] in " \n"
        reliable = len(some) - BLANK_LOOKAHEAD - (0 if at_blank else WORD_MAX)
        assert some[: max(reliable, 0)] == whole[: max(reliable, 0)]
    assert text.startswith(beginning)


LONG = [
    pytest.param("the river and the sea " * 20_000, id="words"),
    pytest.param("def f(x):\n        return [x, 1]\n" * 15_000, id="source code"),
    pytest.param("日本語の文章。" * 60_000, id="no blanks"),
    pytest.param("title 日本語の文章。" + "日本語" * 150_000, id="one early blank"),
    pytest.param("0123456789abcdef" * 25_000, id="hexadecimal digits"),
]


@pytest.mark.slow  # Tokenizes megabytes.
@pytest.mark.parametrize("text", LONG)
def test_a_long_text_is_truncated_like_transformers_truncates_it(
    files: TokenizerFiles, text: str
) -> None:
    backend = rust(files)
    backend.enable_truncation(512, strategy="only_second")

    (pair,) = pairs_in(PairTokenizer(files, 512).tokenize(job("cat", [text])))

    assert list(np.frombuffer(pair.input_ids, dtype="<i4")) == backend.encode("cat", text).ids
    assert pair.truncated


class Counting:
    """A backend that counts the characters it receives."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self.characters = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def encode(self, text: str, **options: Any) -> Any:
        self.characters += len(text)
        return self._backend.encode(text, **options)

    def encode_batch_fast(self, texts: list[str], **options: Any) -> Any:
        self.characters += sum(map(len, texts))
        return self._backend.encode_batch_fast(texts, **options)


@pytest.mark.parametrize(
    "text",
    [
        *LONG,
        pytest.param(" " * 5_000_000, id="white space"),
        pytest.param("\x00" * 5_000_000, id="control characters"),
        pytest.param("ж" * 5_000_000, id="an endless word"),
        pytest.param("e" + "\u0301" * 5_000_000, id="endless accents"),
    ],
)
def test_a_bounded_part_of_a_long_text_is_read(files: TokenizerFiles, text: str) -> None:
    tokenizer = PairTokenizer(files, 512)
    counting = Counting(rust(files))
    tokenizer._encoder = TextEncoder(counting)

    (pair,) = pairs_in(tokenizer.tokenize(job("cat", [text])))

    assert counting.characters <= len("cat") + CHARACTERS_PER_TOKEN * 512
    assert pair.truncated


def test_a_text_of_few_tokens_ends_at_the_last_blank_before_the_cut(
    folders: dict[str, Path],
) -> None:
    """The cut is after 16 characters for each of 34 tokens, inside the last word."""
    tokenizer = PairTokenizer(TokenizerFiles.read(folders["bert"], "m"), 36)
    kept = "cat" + " " * 527 + "dog"

    before, after = pairs_in(tokenizer.tokenize(job("cat", [kept, f"{kept} riverriverriver"])))

    assert before.input_ids == after.input_ids
    assert (before.truncated, after.truncated) == (False, True)


@pytest.mark.slow  # Seconds for each case.
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads in /proc")
@pytest.mark.parametrize("threads", [1, 5])
def test_the_limit_on_threads_reaches_the_rust_pool(folders: dict[str, Path], threads: int) -> None:
    """The limit also works after tokenizers are built, until one has tokenized a batch.

    BERT's tokenizers do not use the pool: see `word_cache`.
    """
    files = dataclasses.asdict(TokenizerFiles.read(folders["roberta"], "tiny"))
    program = (
        "import json, os, sys\n"
        "from serve_app.engine.tokenizer import PairTokenizer, TokenizerFiles, limit_threads\n"
        "from testkit.reference import job\n"
        "count = lambda: len(os.listdir('/proc/self/task'))\n"
        "tokenizer = PairTokenizer(TokenizerFiles(**json.loads(sys.argv[1])))\n"
        "before = count()\n"
        "limit_threads(int(sys.argv[2]))\n"
        "tokenizer.tokenize(job('cat', ['the dog'] * 1_000))\n"
        "print(count() - before)\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(files), str(threads)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[3],
    )

    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == threads
