"""The constructed model is a plain BERT, separates its segments, and ranks before training."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cosine_similarity
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    BertForSequenceClassification,
)

from testkit.reference import reference_logits
from training.data import ENCODER, Ids, collate, token_ids
from training.states import lower_layers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

MEAN_CHANGE_MAX, COSINE_MIN = 0.02, 0.9
"""Limits for a token's state when the other text changes; a coordinate is about 0.65.

Measured: a mean change of at most 0.012, and a cosine of 0.93 for the worst token. The original
encoder has at least 0.15, and 0.35.
"""

QUERIES = (
    "when was the old lighthouse on the island built",
    "how do bees find their way back to the hive",
    "what makes the leaves of a maple turn red",
    "who repairs the clock in the town hall tower",
    "why does sea water taste of salt everywhere",
)
SHARING = (
    "The lighthouse was built in 1871, when the island was still old fishermen's land.",
    "Bees find the way to their hive by the sun, and fly back in a straight line.",
    "The maple's leaves turn red when the cold makes them store their sugar.",
    "The clock in the tower of the town hall is repaired by a locksmith's daughter.",
    "Rivers carry salt to the sea, so its water does taste of salt.",
)
UNRELATED = (
    "Fresh bread needs flour, yeast, and the patience to leave it alone for hours at a time.",
    "The committee will vote on next year's budget after its members have come from lunch.",
    "A violin is tuned in fifths, beginning with the second of its four strings, the A.",
    "Nurses on the night shift drink more coffee than anybody else in the whole hospital.",
    "His goal in the last minute decided the match, and with it the championship of 1994.",
)


@pytest.fixture(scope="module")
def model(start: Path) -> Any:
    return AutoModelForSequenceClassification.from_pretrained(start).eval()


def test_it_is_a_plain_bert_that_transformers_saves_and_loads(
    model: Any, start: Path, tmp_path: Path
) -> None:
    assert type(model) is BertForSequenceClassification
    assert (model.config.num_hidden_layers, model.config.num_labels) == (8, 1)
    model.save_pretrained(tmp_path)

    again, report = BertForSequenceClassification.from_pretrained(
        tmp_path, output_loading_info=True
    )

    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert again.state_dict().keys() == model.state_dict().keys()
    for name, value in again.state_dict().items():
        assert value.equal(model.state_dict()[name]), name
        assert value.isfinite().all(), name
    assert (start / "tokenizer.json").is_file()


def states_of(bert: Any, pairs: list[tuple[Ids, Ids]]) -> torch.Tensor:
    batch = collate(pairs)
    assert batch.real.all(), "all pairs have one length, so that tokens keep their positions"
    with torch.no_grad():
        states: torch.Tensor = bert(
            input_ids=batch.input_ids, token_type_ids=batch.token_types
        ).last_hidden_state
    return states


@pytest.mark.parametrize("changed", ["document", "query"])
def test_below_layer_7_a_text_does_not_see_the_other_one(start: Path, changed: str) -> None:
    queries = [ids[:8] for ids in token_ids(QUERIES, 8)]
    documents = token_ids(UNRELATED, 15)
    others = token_ids(SHARING, 15)

    def both(bert: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Return states of the unchanged side before and after, each (B, L, HIDDEN).

        [CLS] belongs to the query.
        """
        before = list(zip(queries, documents, strict=True))
        if changed == "document":
            after, kept = list(zip(queries, others, strict=True)), slice(0, 10)
        else:
            turned = [*queries[1:], queries[0]]
            after, kept = list(zip(turned, documents, strict=True)), slice(10, None)
        return states_of(bert, before)[:, kept], states_of(bert, after)[:, kept]

    first, second = both(lower_layers(start))
    assert (first - second).abs().mean() < MEAN_CHANGE_MAX
    assert cosine_similarity(first, second, dim=2).min() > COSINE_MIN

    first, second = both(AutoModel.from_pretrained(ENCODER).eval())
    assert (first - second).abs().mean() > 5 * MEAN_CHANGE_MAX
    assert cosine_similarity(first, second, dim=2).min() < COSINE_MIN - 0.1


def test_documents_with_the_query_s_words_beat_unrelated_ones(start: Path) -> None:
    sharing = reference_logits(start, list(zip(QUERIES, SHARING, strict=True)))
    unrelated = reference_logits(
        start, [(query, document) for query in QUERIES for document in UNRELATED]
    )

    for place, logit in enumerate(sharing):
        assert logit > max(unrelated[5 * place : 5 * place + 5]) + 1
