"""The shortcut through layers 7 and 8 gives nearly the same logits as the whole model."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from testkit.judged import read_folder
from tests.support.training_texts import JUDGED
from training.data import Ids, collate, token_ids
from training.states import lower_layers, lower_states
from training.upper import logits

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

OMITTED_MAX, OMITTED_MEAN_MAX = 0.15, 0.01
"""Limits for the omitted attention of layer 8 to documents, with logits from -3 to 3.

Measured: at most 0.05, on average 0.001.
"""

ALONE_MAX, ALONE_MEAN_MAX = 0.7, 0.15
"""Limits when texts are encoded separately too: states depend slightly on the other text.

Measured: at most 0.45, on average 0.07.
"""


@pytest.fixture(scope="module")
def pairs() -> list[tuple[Ids, Ids]]:
    """12 queries with 8 documents each; the pairs of a query are adjacent."""
    judged = list(read_folder(JUDGED, depth=8).judged)
    return [
        (query, document)
        for each, query in zip(judged, token_ids([each.query for each in judged], 48), strict=True)
        for document in token_ids(each.texts, 128)
    ]


@pytest.fixture(scope="module")
def model(start: Path) -> Any:
    return AutoModelForSequenceClassification.from_pretrained(start).eval()


@pytest.fixture(scope="module")
def expected(model: Any, pairs: list[tuple[Ids, Ids]]) -> torch.Tensor:
    batch = collate(pairs)
    with torch.no_grad():
        found: torch.Tensor = model(
            input_ids=batch.input_ids,
            token_type_ids=batch.token_types,
            attention_mask=batch.real.long(),
        ).logits[:, 0]
    assert found.std() > 1
    return found


@torch.no_grad()  # type: ignore[untyped-decorator]  # torch is Any to mypy here
def test_logits_of_the_own_states_of_a_pair_equal_the_model(
    start: Path, model: Any, pairs: list[tuple[Ids, Ids]], expected: torch.Tensor
) -> None:
    lower = lower_layers(start)

    found = logits(
        model,
        list(lower_states(lower, pairs, 0, "queries")),
        list(lower_states(lower, pairs, 1, "documents")),
    )

    assert (found - expected).abs().max() < OMITTED_MAX
    assert (found - expected).abs().mean() < OMITTED_MEAN_MAX


@torch.no_grad()  # type: ignore[untyped-decorator]  # torch is Any to mypy here
def test_logits_of_separately_computed_states_are_near_the_model(
    start: Path, model: Any, pairs: list[tuple[Ids, Ids]], expected: torch.Tensor
) -> None:
    """As in training: queries without a document, documents after a placeholder query."""
    lower = lower_layers(start)
    alone: list[tuple[Ids, Ids]] = [(query, []) for query, _ in pairs]
    behind = [([1] * len(query), document) for query, document in pairs]

    found = logits(
        model,
        list(lower_states(lower, alone, 0, "queries")),
        list(lower_states(lower, behind, 1, "documents")),
    )

    assert (found - expected).abs().max() < ALONE_MAX
    assert (found - expected).abs().mean() < ALONE_MEAN_MAX


@torch.no_grad()  # type: ignore[untyped-decorator]  # torch is Any to mypy here
def test_the_logit_of_a_pair_does_not_depend_on_longer_ones_in_the_batch(
    start: Path, model: Any, pairs: list[tuple[Ids, Ids]]
) -> None:
    lower = lower_layers(start)
    queries = list(lower_states(lower, pairs[:24], 0, "queries"))
    documents = list(lower_states(lower, pairs[:24], 1, "documents"))

    together = logits(model, queries, documents)
    alone = [
        logits(model, [query], [document])[0].item()
        for query, document in zip(queries, documents, strict=True)
    ]

    assert together.tolist() == pytest.approx(alone, abs=1e-4)
