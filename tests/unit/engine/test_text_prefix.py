"""Reading only the beginning of a text gives the same tokens as reading all of it."""

import dataclasses
import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers

from serve_app.domain.model import Truncation
from serve_app.engine.sources import resolve
from serve_app.engine.text_prefix import Beginnings, FirstWindow
from serve_app.engine.tokenizer import PairTokenizer, TokenizerFiles
from testkit.reference import job
from testkit.tiny_models import CJK_AND_EMOJI, FAMILIES, WORDS
from tests.support.varied_pairs import STRANGE

pytestmark = pytest.mark.slow  # Thousands of texts against five tokenizers.

WHOLE = FirstWindow(characters_min=10**9)
SMALL = [
    pytest.param(FirstWindow(1, 1, slack=4), id="small"),
    pytest.param(FirstWindow(3, 1, slack=16), id="wide slack"),
]

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


def thorough(examples: int) -> settings:
    health = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
    return settings(max_examples=examples, deadline=None, suppress_health_check=health)


@functools.cache
def tokenizer(files: TokenizerFiles, pair_tokens_max: int, first: FirstWindow) -> PairTokenizer:
    return PairTokenizer(files, pair_tokens_max, first)


def rust(files: TokenizerFiles) -> Any:
    backend = Backend.from_str(files.backend)
    backend.no_truncation()
    backend.no_padding()
    return backend


@pytest.mark.parametrize("pair_tokens_max", [36, 37])
@pytest.mark.parametrize("small", SMALL)
@thorough(40)
@given(query=st.sampled_from(["", "cat", "what is light", "cat " * 40]), text=texts())
def test_a_pair_does_not_depend_on_how_much_is_read(
    files: TokenizerFiles, small: FirstWindow, pair_tokens_max: int, query: str, text: str
) -> None:
    by_window = tokenizer(files, pair_tokens_max, small)
    at_once = tokenizer(files, pair_tokens_max, WHOLE)
    documents = [text, "", f"cat {text}", text[:60]]

    for truncation in Truncation:
        if len(query) > 20 and truncation is Truncation.ONLY_DOCUMENT:
            continue
        request = job(query, documents, truncation)
        assert by_window.tokenize(request) == at_once.tokenize(request)


@pytest.mark.parametrize("small", SMALL)
@thorough(100)
@given(text=texts(), tokens=st.integers(1, 40))
def test_leading_tokens_are_those_of_the_whole_text(
    files: TokenizerFiles, small: FirstWindow, text: str, tokens: int
) -> None:
    beginnings = reader(files, small)

    (leading,) = beginnings.encode([text], tokens)

    (whole,) = beginnings.encode_whole([text])
    assert leading == whole[:tokens]


def test_a_text_that_gives_no_tokens_is_not_read_for_ever(files: TokenizerFiles) -> None:
    short = FirstWindow(1, 13, slack=0, characters_max=100)
    text = " " * 200 + "cat dog"

    (leading,) = reader(files, short).encode([text], 4)

    (of_what_is_read,) = reader(files, short).encode_whole([text[:100]])
    assert leading == of_what_is_read[:4]
    pairs = tokenizer(files, 36, short).tokenize(job("cat", [text[:100], text, "dog"])).pairs
    assert [pair.truncated for pair in pairs[1:]] == [True, False]
    assert pairs[0].input_ids == pairs[1].input_ids


@functools.cache
def reader(files: TokenizerFiles, first: FirstWindow) -> Beginnings:
    return Beginnings(rust(files), first)


def unigram_of_a() -> Any:
    """A model that puts the odd letter first or last depending on the length of the whole text."""
    pieces = [("<unk>", 0.0), ("a", -3.0), ("aa", -2.5), ("aaa", -1.0), ("b", -3.0), ("ab", -2.0)]
    return models.Unigram(pieces, unk_id=0, byte_fallback=False)


def bpe_of_a() -> Any:
    entries = ["a", "b", "aa", "aaa", "ab", "ba", "aab", "Ġ"]
    merges = [("a", "a"), ("aa", "a"), ("b", "a"), ("a", "b"), ("aa", "b")]
    return models.BPE({entry: number for number, entry in enumerate(entries)}, merges)


@pytest.mark.parametrize("model", [unigram_of_a, bpe_of_a])
@pytest.mark.parametrize("blanks_split", [True, False])
@thorough(300)
@given(
    parts=st.lists(
        st.tuples(st.text("ab ", min_size=1, max_size=6), st.sampled_from([1, 3, 50, 200])),
        min_size=1,
        max_size=6,
    ),
    tokens=st.integers(1, 30),
)
@example(parts=[("a", 1), (" ", 50), ("a", 200)], tokens=1)  # Without blanks it is one token.
def test_where_words_end_nowhere_the_tokens_are_those_of_the_whole_text(
    model: Any, blanks_split: bool, parts: list[tuple[str, int]], tokens: int
) -> None:
    backend = Backend(model())
    if blanks_split:
        backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    beginnings = Beginnings(backend, FirstWindow(1, 13, slack=0))
    text = "".join(piece * times for piece, times in parts)

    (leading,) = beginnings.encode([text], tokens)

    (whole,) = beginnings.encode_whole([text])
    assert leading == whole[:tokens]


class Counting:
    """A backend that counts the characters it receives."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self.characters = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def encode_batch_fast(self, texts: list[str], **options: Any) -> Any:
        self.characters += sum(map(len, texts))
        return self._backend.encode_batch_fast(texts, **options)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("the river and the sea " * 20_000, id="words"),
        pytest.param("日本語の文章。" * 60_000, id="no blanks"),
        pytest.param("title 日本語の文章。" + "日本語" * 150_000, id="one early blank"),
        pytest.param("0123456789abcdef" * 25_000, id="hexadecimal digits"),
    ],
)
def test_little_of_a_long_text_is_read(files: TokenizerFiles, text: str) -> None:
    backend = Counting(rust(files))
    beginnings = Beginnings(backend)
    backend.characters = 0

    (leading,) = beginnings.encode([text], 100)

    assert backend.characters < len(text) / 5
    assert leading == next(beginnings.encode_whole([text]))[:100]


def test_a_word_is_not_shortened_where_an_added_token_may_be_inside_it(
    folders: dict[str, Path],
) -> None:
    backend = rust(TokenizerFiles.read(folders["bert"], "m"))
    backend.add_tokens(["secret"])
    text = "a" * 5_000 + "secret"
    beginnings = Beginnings(backend, FirstWindow(1, 1, slack=0))

    (leading,) = beginnings.encode([text], 10)

    assert leading == backend.encode(text, add_special_tokens=False).ids
    assert len(leading) == 2


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads in /proc")
@pytest.mark.parametrize("threads", [1, 5])
def test_the_limit_on_threads_reaches_the_rust_pool(folders: dict[str, Path], threads: int) -> None:
    """The limit also works after tokenizers are built, until one has tokenized a batch."""
    files = dataclasses.asdict(TokenizerFiles.read(folders["bert"], "tiny"))
    program = (
        "import json, os, sys\n"
        "from serve_app.engine.tokenizer import PairTokenizer, TokenizerFiles, limit_threads\n"
        "from testkit.reference import job\n"
        "count = lambda: len(os.listdir('/proc/self/task'))\n"
        "tokenizer = PairTokenizer(TokenizerFiles(**json.loads(sys.argv[1])))\n"
        "before = count()\n"
        "limit_threads(int(sys.argv[2]))\n"
        "tokenizer.tokenize(job('cat', ['the dog'] * 100))\n"
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
