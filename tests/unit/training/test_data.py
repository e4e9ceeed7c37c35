"""Training reads the same sequences that BERT's own tokenizer produces."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from tests.support.training_texts import write_set
from tests.support.varied_pairs import varied_pairs
from training.data import (
    CLS,
    DOCUMENT,
    ENCODER,
    FIRST,
    PADDING,
    QUERY,
    SEP,
    as_searched,
    collate,
    read_set,
    token_ids,
)  # fmt: skip

PAIRS = varied_pairs(80, long_texts=0)


@pytest.fixture(scope="module")
def reference() -> Any:
    return AutoTokenizer.from_pretrained(ENCODER)


def test_pairs_equal_those_of_transformers(reference: Any) -> None:
    queries, documents = zip(*PAIRS, strict=True)
    batch = collate(list(zip(token_ids(queries, 512), token_ids(documents, 512), strict=True)))

    expected = reference(list(queries), list(documents), padding=True, return_tensors="pt")

    assert batch.input_ids.equal(expected["input_ids"])
    assert batch.token_types.equal(expected["token_type_ids"])
    assert batch.real.long().equal(expected["attention_mask"])


def test_segments_distinguish_cls_query_document_and_padding() -> None:
    batch = collate([([7, 8], [9]), ([7], [])])

    assert batch.input_ids.tolist() == [[CLS, 7, 8, SEP, 9, SEP], [CLS, 7, SEP, SEP, 0, 0]]
    assert batch.segments.tolist() == [
        [FIRST, QUERY, QUERY, QUERY, DOCUMENT, DOCUMENT],
        [FIRST, QUERY, QUERY, DOCUMENT, PADDING, PADDING],
    ]


def test_long_texts_are_cut_at_exactly_the_token_limit(reference: Any) -> None:
    long = "rain and light over the river " * 200
    whole = reference(long, add_special_tokens=False, truncation=False)["input_ids"]
    assert len(whole) == 1_200

    assert token_ids([long, "rain"], 300) == [whole[:300], whole[:1]]
    assert token_ids([long], 2_000) == [whole]


def test_most_questions_lose_case_and_question_mark() -> None:
    rng = random.Random(0)

    searched = [as_searched("Who wrote Emma? ", rng) for _ in range(1_000)]

    assert set(searched) == {"Who wrote Emma? ", "who wrote emma"}
    assert searched.count("who wrote emma") == pytest.approx(700, abs=60)


def test_a_set_is_read_as_it_was_written(tmp_path: Path) -> None:
    pairs = [{"query": "ürsprung?", "positive": 7, "negatives": [3]}]
    write_set(tmp_path, "set", [(3, "drei"), (7, "sieben, größer")], pairs)

    assert read_set(tmp_path, "set") == ({3: "drei", 7: "sieben, größer"}, pairs)


def test_tensors_have_integers() -> None:
    batch = collate([([7], [8])])

    assert {batch.input_ids.dtype, batch.token_types.dtype, batch.segments.dtype} == {torch.int64}
