"""A text of which the model reads little leads to a warning."""

import json
from dataclasses import replace
from itertools import starmap
from pathlib import Path

import pytest

from serve_app.domain.job import TextPair
from serve_app.domain.model import EMBEDDED, Truncation
from serve_app.engine.loading import load_tokenizer
from serve_app.engine.text_warnings import unknown_token
from serve_app.engine.tokenizer import PairTokenizer, TokenizerFiles
from testkit.reference import job

RESET = "如何重置密码"
CATS = "猫很可爱"


@pytest.fixture(scope="module")
def embedded() -> PairTokenizer:
    return load_tokenizer(EMBEDDED)


def test_a_script_that_the_model_cannot_read_is_named(embedded: PairTokenizer) -> None:
    documents = [CATS, "Use 'forgot password'.", "点击“忘记密码”以设置新密码。", "", "🙂"]

    warnings = embedded.tokenize(job(RESET, documents)).warnings

    assert warnings == (
        "The model does not know most of the text of query: scores mean little.",
        "The model does not know most of the text of the documents at index 0, 2, 4: their scores "
        "mean little.",
    )


@pytest.mark.parametrize(
    "text", ["How do I reset it? 🙂", "Wie setze ich mein Passwort zurück?", "naïve café, 5 €", "x"]
)
def test_a_text_with_few_unknown_characters_leads_to_no_warning(
    embedded: PairTokenizer, text: str
) -> None:
    assert embedded.tokenize(job(text, [text])).warnings == ()


def test_many_unknown_documents_are_counted(embedded: PairTokenizer) -> None:
    (warning,) = embedded.tokenize(job("cats", [CATS] * 9)).warnings

    assert "at index 0, 1, 2, 3, 4 and 4 more:" in warning


def test_a_query_that_leaves_one_token_of_each_document_is_named(embedded: PairTokenizer) -> None:
    longest = embedded.pair_tokens_max - embedded.template.tokens - 1
    (warning,) = embedded.tokenize(job("cat " * longest, ["a long document", "cat"])).warnings

    assert warning == (
        "The text of query is so long that the model reads only 1 token of a document: send a "
        "shorter one."
    )


@pytest.mark.parametrize(
    ("query_tokens", "document", "truncation"),
    [
        (508, "cat", Truncation.ONLY_DOCUMENT),  # The whole document is read.
        (490, "cat " * 30, Truncation.ONLY_DOCUMENT),
        (508, "cat " * 300, Truncation.LONGEST_FIRST),
    ],
)
def test_a_long_query_that_leaves_room_leads_to_no_warning(
    embedded: PairTokenizer, query_tokens: int, document: str, truncation: Truncation
) -> None:
    long = replace(job("cat " * query_tokens, [document]), truncation=truncation)

    assert embedded.tokenize(long).warnings == ()


def test_queries_of_pairs_are_named_by_their_fields(embedded: PairTokenizer) -> None:
    texts = [("cat", "dog"), (RESET, "dog"), ("cat", CATS), (RESET, "cat")]
    pairs = replace(
        job("", []), pairs=tuple(starmap(TextPair, texts)), query_field="pairs[{index}][0]"
    )

    of_query, of_passage = embedded.tokenize(pairs).warnings

    assert "pairs[1][0]:" in of_query
    assert "at index 2:" in of_passage


def test_the_unknown_token_of_every_family_is_found(folders: dict[str, Path]) -> None:
    found = {
        family: unknown_token(TokenizerFiles.read(folder, family).backend)
        for family, folder in folders.items()
    }

    assert found["bert"] is not None
    assert set(found) == set(folders)


@pytest.mark.parametrize(
    ("model", "unknown"),
    [
        ({"type": "Unigram", "unk_id": 3, "vocab": [["<s>", 0.0]]}, 3),
        ({"type": "Unigram", "unk_id": None, "vocab": []}, None),
        ({"type": "BPE", "unk_token": None, "vocab": {"a": 0}}, None),
        ({"type": "BPE", "vocab": {"a": 0}}, None),
        ({"type": "WordPiece", "unk_token": "[UNK]", "vocab": {"[UNK]": 7}}, 7),
        ({"type": "WordLevel", "unk_token": "<unk>", "vocab": {"a": 0}}, None),
    ],
)
def test_a_vocabulary_may_have_no_unknown_token(
    model: dict[str, object], unknown: int | None
) -> None:
    assert unknown_token(json.dumps({"model": model})) == unknown
