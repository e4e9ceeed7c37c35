"""The shortcut through layers 7 and 8 gives nearly the same logits as the whole model."""

from typing import Any

import pytest
import torch
from torch.nn.functional import normalize

from serve_app.engine.embedded.model import ADAPTER, load
from testkit.judged import read_folder
from tests.support.training_texts import JUDGED
from training.data import ENCODER, Ids, collate, lower_layers, lower_states, token_ids
from training.train import correlation
from training.upper import late_interaction, logits

OWN_MIN, ALONE_MIN = 0.998, 0.98
"""Least correlations of the logits, if the states are those of the pair itself, and if the texts
are computed apart. States depend slightly on the other text, and are computed in bfloat16."""


@pytest.fixture(scope="module")
def model() -> Any:
    return load(ENCODER, ADAPTER).eval()


@pytest.fixture(scope="module")
def texts() -> tuple[list[Ids], list[Ids]]:
    """Three queries and six documents."""
    judged = list(read_folder(JUDGED, depth=2).judged)[:3]
    queries = token_ids([each.query for each in judged], 48)
    return queries, token_ids([text for each in judged for text in each.texts], 128)


@torch.no_grad()  # type: ignore[untyped-decorator]  # torch is Any to mypy here
def logits_of_pairs(model: Any, queries: list[Ids], documents: list[Ids]) -> torch.Tensor:
    batch = collate([(query, document) for query in queries for document in documents])
    found: torch.Tensor = model(**batch.inputs).logits.view(len(queries), len(documents))
    return found


@pytest.fixture(scope="module")
def expected(model: Any, texts: tuple[list[Ids], list[Ids]]) -> torch.Tensor:
    found = logits_of_pairs(model, *texts)
    assert found.std() > 1
    return found


@torch.no_grad()  # type: ignore[untyped-decorator]  # torch is Any to mypy here
def test_logits_of_the_own_states_of_a_pair_equal_the_model(
    model: Any, texts: tuple[list[Ids], list[Ids]], expected: torch.Tensor
) -> None:
    queries, documents = texts
    lower = lower_layers(ADAPTER)
    pairs = [(query, document) for query in queries for document in documents]
    first, second = lower_states(lower, pairs, 0, "a"), lower_states(lower, pairs, 1, "b")

    found = torch.stack([logits(model, [first[i]], [second[i]])[0, 0] for i in range(len(pairs))])

    assert correlation(found, expected.flatten()) > OWN_MIN


@torch.no_grad()  # type: ignore[untyped-decorator]  # torch is Any to mypy here
def test_logits_contain_what_layer_8_reads_in_the_document(
    texts: tuple[list[Ids], list[Ids]], expected: torch.Tensor
) -> None:
    """Here [CLS] reads all tokens alike, so that most of its attention goes to the document."""
    queries, documents = texts
    changed = load(ENCODER, ADAPTER).eval()
    for parameter in changed.bert.encoder.layer[-1].attention.self.query.parameters():
        parameter.zero_()
    whole = logits_of_pairs(changed, queries, documents)
    lower = lower_layers(ADAPTER)
    first = lower_states(lower, [(query, []) for query in queries], 0, "queries")
    second = lower_states(lower, [([1] * 8, document) for document in documents], 1, "documents")

    found = logits(changed, list(first), list(second))

    assert correlation(whole.flatten(), expected.flatten()) < ALONE_MIN - 0.1
    assert correlation(found.flatten(), whole.flatten()) > ALONE_MIN


@torch.no_grad()  # type: ignore[untyped-decorator]  # torch is Any to mypy here
def test_logits_of_separately_computed_states_are_near_the_model(
    model: Any, texts: tuple[list[Ids], list[Ids]], expected: torch.Tensor
) -> None:
    """As in training: queries without a document, documents after a placeholder query."""
    queries, documents = texts
    lower = lower_layers(ADAPTER)
    first = lower_states(lower, [(query, []) for query in queries], 0, "queries")
    second = lower_states(lower, [([1] * 8, document) for document in documents], 1, "documents")

    found = logits(model, list(first), list(second))

    assert correlation(found.flatten(), expected.flatten()) > ALONE_MIN


def test_late_interaction_is_the_mean_soft_maximum_of_cosines() -> None:
    torch.manual_seed(0)
    queries, documents = (
        [torch.randn(n, 384) for n in (4, 6)],
        [torch.randn(n, 384) for n in (9, 3)],
    )

    found = late_interaction(queries, documents)

    for i, query in enumerate(queries):
        for j, document in enumerate(documents):
            cosines = normalize(query[1:-1], dim=1) @ normalize(document[:-1], dim=1).T
            assert found[i, j] == pytest.approx(((20 * cosines).logsumexp(1) / 20).mean().item())
