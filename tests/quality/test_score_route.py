"""``/v1/score`` and ``/v1/rerank`` give the same scores with the embedded model."""

from collections.abc import Iterator

import pytest

from tests.support.app import FakeApp
from tests.support.embedded_app import embedded_app
from tests.support.varied_pairs import varied_pairs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TOLERANCE = 1e-4
"""Tolerance of float32 logits from batches of different shapes."""

QUERIES = ["how tall is the eiffel tower", "what do penguins eat", "東京の天気 🙂"]
PASSAGES = [
    "The Eiffel Tower is 330 metres tall.",
    "Penguins eat krill, squid and fish.",
    "",
    *(passage for _, passage in varied_pairs(100, long_texts=0)[:8]),
    "Far too long. " * 600,
]
PAIRS = [[query, passage] for passage in PASSAGES for query in QUERIES]


@pytest.fixture(scope="module")
def app() -> Iterator[FakeApp]:
    built = embedded_app()
    yield built
    built.close()


@pytest.mark.parametrize("strategy", ["only_document", "longest_first"])
def test_scores_equal_those_of_reranks_with_one_query_each(app: FakeApp, strategy: str) -> None:
    options = {"raw_scores": True, "truncation_strategy": strategy}
    scored = app.send("POST", "/v1/score", body={"pairs": PAIRS} | options).json()

    expected: dict[tuple[str, int], dict[str, object]] = {}
    tokens = 0
    for query in QUERIES:
        ranked = app.rerank(query=query, documents=PASSAGES, **options).json()
        tokens += ranked["usage"]["prompt_tokens"]
        expected |= {(query, result["index"]): result for result in ranked["results"]}

    logits = [each["score"] for each in scored["data"]]
    reranked = [expected[query, PASSAGES.index(passage)] for query, passage in PAIRS]
    assert logits == pytest.approx([each["relevance_score"] for each in reranked], abs=TOLERANCE)
    assert max(logits) - min(logits) > 1
    cut = [each.get("truncated") for each in scored["data"]]
    assert cut == [each.get("truncated") for each in reranked]
    assert True in cut
    assert scored["usage"]["prompt_tokens"] == tokens


def test_a_too_long_query_is_named_by_its_pair(app: FakeApp) -> None:
    long = "word " * 600
    pairs = [*PAIRS[:3], [long, "a passage"]]

    refused = app.send("POST", "/v1/score", body={"pairs": pairs})
    cut = app.send(
        "POST", "/v1/score", body={"pairs": pairs, "truncation_strategy": "longest_first"}
    )

    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "pairs[3][0]")
    assert "600 tokens" in refused.json()["message"]
    assert cut.json()["data"][3]["truncated"] is True
    assert "truncated" not in cut.json()["data"][0]
