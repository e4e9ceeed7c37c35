"""Documents that do not fit the model: refused, or divided into windows."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import models, normalizers, pre_tokenizers

from serve_app.domain.errors import InvalidRequest, TooLarge
from serve_app.domain.job import Job
from serve_app.domain.model import Overflow
from serve_app.domain.ranking import rank
from serve_app.domain.tokenized import Pair, Window
from serve_app.engine.limits import EngineLimits
from serve_app.engine.loading import load_engine, load_tokenizer
from serve_app.engine.text_prefix import SLICE_CHARACTERS, TextEncoder, tokens_at_most
from serve_app.engine.tokenizer import PairTokenizer
from testkit.reference import job, portion
from testkit.tiny_models import CJK_AND_EMOJI, FAMILIES, WORDS
from testkit.tokenized import pairs_in

QUERY = "cat"
PAIR_TOKENS_MAX = 24

texts = st.lists(
    st.sampled_from([*WORDS, *CJK_AND_EMOJI, "\ufdfa", "각", "İ", "e\u0301", " ", "\n\n", "\x00"])
    | st.text(max_size=8),
    max_size=120,
).map(" ".join) | st.text(max_size=200)
unhurried = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module", params=FAMILIES)
def tokenizer(request: pytest.FixtureRequest, folders: dict[str, Path]) -> PairTokenizer:
    return load_tokenizer(str(folders[request.param]), pair_tokens_max=PAIR_TOKENS_MAX)


def chunked(documents: Sequence[str], query: str = QUERY, windows_max: int = 10_000) -> Job:
    return replace(job(query, documents), overflow=Overflow.CHUNK, windows_max=windows_max)


def windows_of(pairs: Sequence[Pair]) -> list[Window]:
    return [pair.window for pair in pairs if pair.window is not None]


def alone(tokenizer: PairTokenizer, documents: Sequence[str], window: Window) -> Pair:
    """Tokenize the text of a window as a document."""
    text = documents[window.document][window.start : window.end]
    return pairs_in(tokenizer.tokenize(job(QUERY, [text])))[0]


def pseudo_logit(pair: Pair) -> float:
    """Return one of few values, so that there are ties."""
    return float(sum(pair.input_ids) % 5)


@unhurried
@given(documents=st.lists(texts, min_size=1, max_size=4), top_n=st.none() | st.integers(1, 3))
def test_chunks_equal_a_loop_over_the_texts_of_the_windows(
    tokenizer: PairTokenizer, documents: list[str], top_n: int | None
) -> None:
    """The loop cuts each document by the spans and scores each text as a document of its own."""
    pairs = pairs_in(tokenizer.tokenize(chunked(documents)))

    logits = [pseudo_logit(pair) for pair in pairs]
    order = rank(logits, top_n, [pair.document for pair in pairs])

    windows = windows_of(pairs)
    assert [pair.index for pair in pairs] == list(range(len(windows)))
    best: dict[int, tuple[float, int, int]] = {}
    for window in windows:
        logit = pseudo_logit(alone(tokenizer, documents, window))
        known = best.get(window.document)
        if known is None or logit > known[0]:
            best[window.document] = logit, window.start, window.end
    expected = sorted(best.items(), key=lambda item: (-item[1][0], item[0]))[:top_n]
    assert [
        (windows[i].document, (logits[i], windows[i].start, windows[i].end)) for i in order
    ] == expected


@unhurried
@given(document=texts)
def test_windows_cover_every_character_and_are_read_whole(
    tokenizer: PairTokenizer, document: str
) -> None:
    pairs = pairs_in(tokenizer.tokenize(chunked([document])))

    windows = windows_of(pairs)
    assert (windows[0].start, windows[-1].end) == (0, len(document))
    for one, other in pairwise(windows):
        assert one.start <= other.start <= one.end <= other.end
    for pair, window in zip(pairs, windows, strict=True):
        whole = alone(tokenizer, [document], window)
        assert replace(pair, index=0, window=None) == whole


@unhurried
@given(documents=st.lists(texts, min_size=1, max_size=3), limit=st.none() | st.integers(1, 60))
def test_the_bound_covers_the_windows_and_their_tokens(
    tokenizer: PairTokenizer, documents: list[str], limit: int | None
) -> None:
    """The price of the bound is reserved, and a charge cannot exceed its reservation."""
    request = replace(chunked(documents), document_tokens_max=limit)

    most = tokenizer.check_queries(request)

    tokenized = tokenizer.tokenize(request)
    assert len(documents) <= len(tokenized.lengths) <= most.documents
    assert tokenized.tokens <= most.tokens


@unhurried
@given(document=texts)
def test_a_text_has_at_most_as_many_tokens_as_bytes(
    tokenizer: PairTokenizer, document: str
) -> None:
    assert tokenizer._encoder.count(document) <= tokens_at_most(document)


def by_bytes(normalizer: Any) -> TextEncoder:
    """Return an encoder with one token for each byte of the normalized text."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend = Backend(models.BPE({byte: number for number, byte in enumerate(alphabet)}, []))
    backend.normalizer = normalizer
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return TextEncoder(backend)


NORMALIZERS = [
    *(normalizers.NFC(), normalizers.NFD(), normalizers.NFKC(), normalizers.NFKD()),
    normalizers.Lowercase(),
    normalizers.Sequence([normalizers.NFKD(), normalizers.Lowercase()]),
]


@pytest.mark.parametrize("normalizer", NORMALIZERS, ids=lambda each: type(each).__name__)
@unhurried
@given(text=texts | st.text(st.characters(min_codepoint=0x80), max_size=50))
@example(text="\ufdfa")  # 3 bytes, which are normalized to 33.
@example(text="\u023e")  # 2 bytes, but 3 in lower case.
@example(text="\xaa\u1fb7")  # The first has 2 bytes in NFD and 1 in NFKD.
def test_a_normalized_text_has_at_most_as_many_tokens(normalizer: Any, text: str) -> None:
    encoder = by_bytes(normalizer)

    assert encoder.count(text) == len(encoder.offsets(text, 10**9)) <= tokens_at_most(text)


def test_a_long_text_is_divided_like_its_parts(folders: dict[str, Path]) -> None:
    """It is read in pieces. They end at blanks, so each window begins with a whole word."""
    tokenizer = load_tokenizer(str(folders["bert"]))
    words = ["cat", "dog", "river", "bridge"] * (SLICE_CHARACTERS // 10)
    text = " ".join(words)
    assert len(text) > 2 * SLICE_CHARACTERS

    pairs = pairs_in(tokenizer.tokenize(chunked([text])))

    starts = [0]
    for word in words:
        starts.append(starts[-1] + len(word) + 1)
    assert {window.start for window in windows_of(pairs)} <= set(starts)
    assert not any(pair.truncated for pair in pairs)
    assert sum(pair.tokens for pair in pairs) == pytest.approx(len(words) * 4 / 3, rel=0.02)


def test_a_document_that_fits_has_one_window(folders: dict[str, Path]) -> None:
    tokenizer = load_tokenizer(str(folders["bert"]))
    documents = ["the cat", "", " dog "]

    pairs = pairs_in(tokenizer.tokenize(chunked(documents)))

    assert windows_of(pairs) == [Window(0, 0, 7), Window(1, 0, 0), Window(2, 0, 5)]
    ordinary = pairs_in(tokenizer.tokenize(job(QUERY, documents)))
    assert [pair.input_ids for pair in pairs] == [pair.input_ids for pair in ordinary]


def test_the_spans_count_code_points(folders: dict[str, Path]) -> None:
    tokenizer = load_tokenizer(str(folders["bert"]), pair_tokens_max=16)
    document = "🙂" * 30 + " dog"

    pairs = pairs_in(tokenizer.tokenize(chunked([document])))

    (last,) = {window.end for window in windows_of(pairs)} - set(range(34))
    assert last == len(document) == 34


class Counting:
    """A backend that counts the characters it receives."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self.characters = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def encode_batch(self, texts: list[str], **options: Any) -> Any:
        self.characters += sum(map(len, texts))
        return self._backend.encode_batch(texts, **options)


def test_too_many_windows_are_refused_before_all_text_is_read(folders: dict[str, Path]) -> None:
    tokenizer = load_tokenizer(str(folders["bert"]), pair_tokens_max=PAIR_TOKENS_MAX)
    counting = Counting(tokenizer._encoder._backend)
    tokenizer._encoder = TextEncoder(counting)
    request = chunked(["dog", "cat " * 1_000_000], windows_max=50)

    assert tokenizer.check_queries(request).documents == 50
    with pytest.raises(TooLarge, match="documents") as refused:
        tokenizer.tokenize(request)

    assert refused.value.where == "documents[1]"
    assert counting.characters <= 2 * SLICE_CHARACTERS
    assert len(tokenizer.tokenize(chunked(["dog"] * 50, windows_max=50)).lengths) == 50


@pytest.mark.parametrize("limits", [{"document_windows_max": 2}, {"document_tokens_max": 30}])
def test_a_limit_on_a_document_leaves_its_end_without_a_window(
    folders: dict[str, Path], limits: dict[str, Any]
) -> None:
    tokenizer = load_tokenizer(str(folders["bert"]), pair_tokens_max=PAIR_TOKENS_MAX)
    short, long = "the dog", "cat " * 1_000
    request = replace(chunked([short, long]), **limits)

    pairs = pairs_in(tokenizer.tokenize(request))

    assert [(pair.document, pair.truncated) for pair in pairs] == [
        (0, False),
        (1, True),
        (1, True),
    ]
    assert windows_of(pairs)[-1].end < len(long)
    assert tokenizer.check_queries(request).documents >= 3


def test_the_first_document_that_is_too_long_is_named(folders: dict[str, Path]) -> None:
    tokenizer = load_tokenizer(str(folders["bert"]), pair_tokens_max=16)
    documents = ["cat " * 12, "cat " * 13, "dog", "dog " * 2_000]
    strict = replace(
        job(QUERY, documents), overflow=Overflow.ERROR, document_field="pairs[{index}][1]"
    )

    with pytest.raises(InvalidRequest) as refused:
        tokenizer.tokenize(strict)

    assert refused.value.public_message == (
        "pairs[1][1]: has 13 tokens, of which the model can read 12 with this query; documents "
        "that are too long: 2. Nothing was charged."
    )
    fitting = replace(strict, pairs=strict.pairs[:1])
    assert tokenizer.tokenize(fitting) == tokenizer.tokenize(job(QUERY, documents[:1]))


def test_a_limit_on_a_document_counts_as_too_long(folders: dict[str, Path]) -> None:
    tokenizer = load_tokenizer(str(folders["bert"]), pair_tokens_max=16)
    strict = replace(job(QUERY, ["cat " * 5]), overflow=Overflow.ERROR, document_tokens_max=4)

    with pytest.raises(InvalidRequest, match="has 5 tokens, of which the model can read 4"):
        tokenizer.tokenize(strict)


def test_a_text_of_few_tokens_can_be_too_long(folders: dict[str, Path]) -> None:
    tokenizer = load_tokenizer(str(folders["bert"]), pair_tokens_max=16)
    strict = replace(job(QUERY, ["cat" + " " * 10_000 + "dog"]), overflow=Overflow.ERROR)

    with pytest.raises(InvalidRequest, match="has 10,006 characters, which are too many for its 2"):
        tokenizer.tokenize(strict)


@pytest.mark.parametrize("overflow", [Overflow.ERROR, Overflow.CHUNK])
def test_a_query_is_never_cut_then(folders: dict[str, Path], overflow: Overflow) -> None:
    tokenizer = load_tokenizer(str(folders["bert"]), pair_tokens_max=16)
    request = replace(job("cat " * 13, ["dog"]), overflow=overflow)

    with pytest.raises(InvalidRequest, match="13 tokens long") as refused:
        tokenizer.check_queries(request)

    assert "longest_first" not in refused.value.public_message


def test_the_scores_of_windows_are_those_of_their_texts(folders: dict[str, Path]) -> None:
    folder = str(folders["bert"])
    tokenizer = load_tokenizer(folder, pair_tokens_max=PAIR_TOKENS_MAX)
    engine = load_engine(folder, None, "float32", EngineLimits(batch_tokens_max=4_096))
    documents = [" ".join(WORDS) * 3, "the dog", " ".join(reversed(WORDS))]

    pairs = pairs_in(tokenizer.tokenize(chunked(documents)))
    logits = engine.score([portion(pairs)])[0]

    texts = [documents[each.document][each.start : each.end] for each in windows_of(pairs)]
    each_alone = [
        engine.score([portion(pairs_in(tokenizer.tokenize(job(QUERY, [text]))))])[0][0]
        for text in texts
    ]
    assert logits == pytest.approx(each_alone, abs=1e-4)
