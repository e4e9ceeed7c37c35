"""Token identity with transformers, and the truncation of pairs that are too long."""

import json
import subprocess
import sys
from dataclasses import replace
from itertools import starmap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from transformers import AutoTokenizer

from serve_app.domain.errors import InvalidRequest
from serve_app.domain.job import TextPair
from serve_app.domain.model import EMBEDDED, Truncation
from serve_app.domain.tokenized import Pair
from serve_app.engine.loading import load_tokenizer
from serve_app.engine.sources import ModelLoadError, resolve
from serve_app.engine.tokenizer import PairTokenizer, TokenizerFiles, fit
from testkit.reference import job, tokenize_pairs
from testkit.tiny_models import FAMILIES, build
from testkit.tokenized import pairs_in
from tests.support.varied_pairs import varied_pairs

Both = tuple[PairTokenizer, Any]

NASTY = st.text(max_size=40) | st.sampled_from(
    [text for pair in varied_pairs(100, long_texts=0) for text in pair]
)


def ids(pair: Pair) -> list[int]:
    return [int(token) for token in np.frombuffer(pair.input_ids, dtype="<i4")]


@pytest.fixture(scope="module", params=[*FAMILIES, EMBEDDED])
def both(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Both:
    """Return our tokenizer and transformers' for the same model."""
    source = str(folders.get(request.param, EMBEDDED))
    return load_tokenizer(source), AutoTokenizer.from_pretrained(resolve(source, None))


@settings(max_examples=60, deadline=None)
@given(query=NASTY, document=NASTY)
def test_a_pair_that_fits_has_the_ids_and_types_of_transformers(
    both: Both, query: str, document: str
) -> None:
    ours, reference = both

    # Pass lists like sentence-transformers: a single empty document would count as no document.
    encoded = reference([query], [document])
    expected = {name: lists[0] for name, lists in encoded.items()}
    if len(expected["input_ids"]) > ours.pair_tokens_max:
        return
    pair = tokenize_pairs(ours, [(query, document)])[0]

    assert ids(pair) == expected["input_ids"]
    assert not pair.truncated
    if "token_type_ids" in expected:
        rest = pair.tokens - pair.query_tokens
        types = [0] * pair.query_tokens + [ours.template.document_type] * rest
        assert types == expected["token_type_ids"]


@pytest.mark.parametrize("pair_tokens_max", [16, 17, 40])
@settings(max_examples=40, deadline=None)
@given(query=NASTY, document=NASTY)
def test_longest_first_cuts_what_the_rust_tokenizer_cuts(
    folders: dict[str, Path], pair_tokens_max: int, query: str, document: str
) -> None:
    files = TokenizerFiles.read(folders["bert"], "tiny")
    ours = PairTokenizer(files, pair_tokens_max)
    rust = Backend.from_str(files.backend)
    rust.enable_truncation(pair_tokens_max, strategy="longest_first")

    pair = tokenize_pairs(ours, [(query, document)], Truncation.LONGEST_FIRST)[0]

    expected = rust.encode(query, document)
    assert ids(pair) == expected.ids
    assert pair.truncated == bool(expected.overflowing)


@pytest.mark.parametrize("truncation", Truncation)
@settings(max_examples=40, deadline=None)
@given(texts=st.lists(st.tuples(NASTY, NASTY), min_size=1, max_size=6))
def test_pairs_of_several_queries_equal_those_of_one_query_each(
    folders: dict[str, Path], truncation: Truncation, texts: list[tuple[str, str]]
) -> None:
    """Other pairs do not matter: some queries here are longer than the model's limit."""
    tokenizer = load_tokenizer(str(folders["bert"]), pair_tokens_max=40)
    texts = [*texts, *texts[:2]]
    if truncation is Truncation.ONLY_DOCUMENT:
        texts = [(query[:20], document) for query, document in texts]
    mixed = replace(job("", []), pairs=tuple(starmap(TextPair, texts)), truncation=truncation)

    alone = tokenize_pairs(tokenizer, texts, truncation)

    together = pairs_in(tokenizer.tokenize(mixed))
    assert [pair.index for pair in together] == list(range(len(texts)))
    assert [replace(pair, index=0) for pair in together] == alone


def test_an_invalid_query_is_named_as_in_its_wire_format(folders: dict[str, Path]) -> None:
    tokenizer = load_tokenizer(str(folders["bert"]), pair_tokens_max=16)
    texts = [("cat", "dog"), ("dog", "cat"), ("cat", "cat"), ("cat " * 13, "dog")]
    mixed = replace(
        job("", []), pairs=tuple(starmap(TextPair, texts)), query_field="pairs[{index}][0]"
    )

    with pytest.raises(InvalidRequest, match="13 tokens") as refusal:
        tokenizer.check_queries(mixed)

    assert refusal.value.where == "pairs[3][0]"


@given(query=st.integers(0, 60), document=st.integers(0, 60), room=st.integers(2, 80))
def test_only_the_document_is_cut_and_never_more_than_needed(
    query: int, document: int, room: int
) -> None:
    if query > room - 1:
        return

    kept = fit(query, document, room, Truncation.ONLY_DOCUMENT)

    assert kept == (query, min(document, room - query))


def test_a_long_document_is_cut_at_its_end_and_marked(folders: dict[str, Path]) -> None:
    tokenizer = load_tokenizer(str(folders["bert"]), pair_tokens_max=16)

    whole, cut = pairs_in(tokenizer.tokenize(job("the cat", ["the dog", "dog " * 20])))

    assert not whole.truncated
    assert cut.truncated
    assert cut.tokens == 16
    assert ids(cut)[:4] == ids(whole)[:4]
    assert ids(cut)[-1] == ids(whole)[-1]


@pytest.mark.parametrize("truncation", Truncation)
@settings(max_examples=40, deadline=None)
@given(query=st.sampled_from(["cat", "dog cat"]), document=NASTY, limit=st.integers(1, 50))
def test_a_limited_document_is_read_to_its_limit_or_the_models(
    folders: dict[str, Path], truncation: Truncation, query: str, document: str, limit: int
) -> None:
    tokenizer = load_tokenizer(str(folders["bert"]), pair_tokens_max=40)
    whole, empty = tokenize_pairs(tokenizer, [(query, document), (query, "")], truncation)
    limited_job = replace(job(query, [document]), truncation=truncation, document_tokens_max=limit)

    limited = pairs_in(tokenizer.tokenize(limited_job))[0]

    document_tokens = whole.tokens - empty.tokens
    kept = min(limit, document_tokens)
    suffix = len(tokenizer.template.suffix)
    expected = ids(whole)[: whole.query_tokens + kept] + ids(whole)[whole.tokens - suffix :]
    assert ids(limited) == expected
    assert limited.truncated == (whole.truncated or limit < document_tokens)


def test_a_query_that_leaves_no_room_is_refused_with_its_length(folders: dict[str, Path]) -> None:
    tokenizer = load_tokenizer(str(folders["bert"]), pair_tokens_max=16)

    with pytest.raises(InvalidRequest, match="13 tokens long; a query may have at most") as refused:
        tokenizer.check_queries(job("cat " * 13, ["dog"]))

    assert refused.value.where == "query"
    assert "send truncation_strategy 'longest_first'" in refused.value.public_message
    longest = job("cat " * 12, ["dog"])
    tokenizer.check_queries(longest)
    assert tokenizer.tokenize(longest).lengths == (16,)
    longer = job("cat " * 13, ["dog"], Truncation.LONGEST_FIRST)
    tokenizer.check_queries(longer)
    assert tokenizer.tokenize(longer).truncated == (True,)


def test_a_query_is_checked_while_all_threads_tokenize(folders: dict[str, Path]) -> None:
    """The check runs on a gateway's event loop, so it must not block other requests."""
    tokenizer = load_tokenizer(str(folders["bert"]), pair_tokens_max=16)
    counted = tokenizer._encoder
    short, long = "cat " * 12, "cat " * 1_000
    assert (counted.count(short), counted.count(long)) == (12, 1_000)

    class Busy:
        def __getattr__(self, name: str) -> Any:
            assert "batch" not in name, "it waits for the threads"
            return getattr(backend, name)

    backend, counted._backend = counted._backend, Busy()
    tokenizer.check_queries(job(short, ["dog"]))


@pytest.mark.parametrize("strategy", Truncation)
def test_a_query_without_tokens_is_refused(folders: dict[str, Path], strategy: Truncation) -> None:
    """BERT's tokenizer drops invisible characters."""
    tokenizer = load_tokenizer(str(folders["bert"]))

    with pytest.raises(InvalidRequest, match="at least one character") as refused:
        tokenizer.check_queries(job("\u200b\ufeff\x01", ["dog"], strategy))

    assert refused.value.where == "query"


def test_documents_keep_their_request_order_across_slices(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = load_tokenizer(str(folders["bert"]))
    documents = ["cat " * length for length in (9, 1, 30, 2, 0, 7)]
    at_once = tokenizer.tokenize(job("dog", documents))
    monkeypatch.setattr("serve_app.engine.text_prefix.SLICE_CHARACTERS", 10)

    sliced = tokenizer.tokenize(job("dog", documents))

    assert sliced == at_once
    assert [pair.index for pair in pairs_in(sliced)] == [0, 1, 2, 3, 4, 5]
    assert sliced.tokens == 49 + 4 * 6


def test_a_lone_surrogate_is_read_as_the_replacement_character(
    folders: dict[str, Path],
) -> None:
    tokenizer = load_tokenizer(str(folders["roberta"]))

    broken, replaced = pairs_in(tokenizer.tokenize(job("cat", ["a \ud83d b", "a \ufffd b"])))

    assert broken.input_ids == replaced.input_ids


def test_a_limit_in_tokenizer_json_is_disabled() -> None:
    """The embedded model's file truncates and pads at 128 tokens."""
    tokenizer = load_tokenizer(EMBEDDED)

    short, long = pairs_in(tokenizer.tokenize(job("q", ["word", "word " * 300])))

    assert (short.tokens, long.tokens) == (5, 304)
    assert tokenizer.pair_tokens_max == 512


@pytest.mark.parametrize("family", FAMILIES)
def test_the_longest_pair_excludes_the_padding_position(
    folders: dict[str, Path], family: str
) -> None:
    """RoBERTa has 514 positions for 512 tokens."""
    tokenizer = load_tokenizer(str(folders[family]))

    assert tokenizer.pair_tokens_max == 512


@pytest.mark.parametrize(
    ("positions", "tokenizer_tokens_max", "override", "expected"),
    [
        pytest.param(512, 128, None, 128, id="the tokenizer's own limit"),
        pytest.param(512, 10**30, None, 512, id="the model's positions"),
        pytest.param(None, 10**30, None, 512, id="no limit stated"),
        pytest.param(512, 128, 300, 300, id="an override above the tokenizer's habit"),
        pytest.param(None, 128, 4096, 4096, id="an override where positions are unbounded"),
    ],
)
def test_the_longest_pair_is_the_tightest_limit(
    positions: int | None, tokenizer_tokens_max: int, override: int | None, expected: int
) -> None:
    files = TokenizerFiles("m", "", tokenizer_tokens_max, positions, token_types=True)

    assert files.pair_tokens_max(override) == expected


def test_an_override_above_the_positions_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(ModelLoadError, match=r"pair_tokens_max is 513, .* for 512 tokens"):
        load_tokenizer(str(folders["roberta"]), pair_tokens_max=513)


def test_a_damaged_tokenizer_is_a_load_error(tmp_path: Path) -> None:
    folder = build(tmp_path / "damaged")
    (folder / "tokenizer.json").write_text("{")

    with pytest.raises(ModelLoadError, match="its tokenizer cannot be read"):
        load_tokenizer(str(folder))


def test_a_tokenizer_without_special_tokens_is_refused(folders: dict[str, Path]) -> None:
    """Query and document would merge: no cross-encoder reads such pairs."""
    backend = json.loads(TokenizerFiles.read(folders["bert"], "m").backend)
    backend["post_processor"] = None
    files = TokenizerFiles("m", json.dumps(backend), 512, 512, token_types=True)

    with pytest.raises(ModelLoadError, match="model m: its tokenizer does not put special tokens"):
        PairTokenizer(files)


@pytest.mark.slow
def test_a_gateway_tokenizes_without_importing_torch(folders: dict[str, Path]) -> None:
    """The child process that reads the files gives the same result as reading them here."""
    program = (
        "import sys\n"
        "from serve_app.engine.loading import load_tokenizer\n"
        "from serve_app.engine.tokenizer import TokenizerFiles\n"
        f"tokenizer = load_tokenizer({str(folders['roberta'])!r})\n"
        "assert tokenizer.pair_tokens_max == 512\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
        "print(tokenizer.template)\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(load_tokenizer(str(folders["roberta"])).template)
