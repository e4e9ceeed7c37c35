"""Training reads the sequences that BERT's own tokenizer produces, and no held-out passage."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from testkit.judged import json_lines
from tests.support.training_texts import write_generated
from tests.support.varied_pairs import varied_pairs
from training.data import (
    CLS,
    ENCODER,
    SEP,
    batches,
    collate,
    held_out,
    keywords,
    part,
    sampled,
    styled,
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
    assert batch.inputs["attention_mask"].equal(expected["attention_mask"])


def test_a_shorter_pair_is_padded_at_the_end() -> None:
    batch = collate([([7, 8], [9]), ([7], [])])

    assert batch.input_ids.tolist() == [[CLS, 7, 8, SEP, 9, SEP], [CLS, 7, SEP, SEP, 0, 0]]
    assert batch.token_types.tolist() == [[0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 0, 0]]
    assert batch.real.sum(1).tolist() == [6, 4]
    assert batch.input_ids.dtype == torch.int64


def test_long_texts_are_cut_at_exactly_the_token_limit(reference: Any) -> None:
    long = "rain and light over the river " * 200
    whole = reference(long, add_special_tokens=False, truncation=False)["input_ids"]
    assert len(whole) == 1_200

    assert token_ids([long, "rain"], 300) == [whole[:300], whole[:1]]
    assert token_ids([long], 2_000) == [whole]


def test_keywords_have_no_stop_words_and_no_marks() -> None:
    assert keywords("What is the cause of Crohn's disease?") == "cause crohn's disease"


def test_queries_come_as_questions_as_search_input_and_as_keywords() -> None:
    rng = random.Random(0)

    found = [styled("Who wrote the Iliad? ", rng) for _ in range(1_000)]

    assert set(found) == {"Who wrote the Iliad? ", "who wrote the iliad", "wrote iliad"}
    assert found.count("wrote iliad") == pytest.approx(400, abs=60)


def test_a_part_starts_at_a_sentence_and_has_as_many_words_as_asked() -> None:
    text = "One two three. Four five six? Seven eight nine ten eleven twelve thirteen fourteen."

    found = {part(text, 3, random.Random(seed)) for seed in range(40)}

    assert found == {"One two three.", "Four five six?", "Seven eight nine"}


def test_odd_passages_are_not_read_and_no_passage_is_read_for_both_parts(tmp_path: Path) -> None:
    write_generated(tmp_path, "clapnq-dev", 60)

    texts = {
        line["text"]: line["id"] for line in json_lines(tmp_path / "clapnq-dev", "passages.jsonl")
    }

    training, development = (
        {texts[text] for text in drawn.documents if text in texts}
        for drawn in (
            sampled(tmp_path, "clapnq-dev", development=False),
            sampled(tmp_path, "clapnq-dev", development=True),
        )
    )

    assert training
    assert development
    assert training.isdisjoint(development)
    assert training | development == {each for each in texts.values() if not held_out(each)}


def test_queries_belong_to_the_passage_that_they_were_made_for(tmp_path: Path) -> None:
    write_generated(tmp_path, "clapnq-dev", 60)

    drawn = sampled(tmp_path, "clapnq-dev", development=False)

    for query, answer in zip(drawn.queries, drawn.answers, strict=True):
        words = set(keywords(query).replace("what of ", "").split())
        assert words <= set(keywords(drawn.documents[answer]).split())


def test_batches_hold_every_pair_once_and_at_most_so_many_tokens() -> None:
    pairs = [([1] * 2, [1] * length) for length in (95, 40, 40, 5, 5, 1)]

    found = list(batches(pairs, range(6), 100))

    assert found == [range(1), range(1, 3), range(3, 6)]
