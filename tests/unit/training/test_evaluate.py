"""The comparison with the encoder's cosine."""

import json
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel

from testkit.judged import JudgedQuery, QueryResult, read_folder
from tests.support.training_texts import JUDGED
from training import evaluate
from training.data import ENCODER, token_ids
from training.evaluate import by_cosine, compare, mean_states

Run = Callable[..., None]

QUERIES = {
    "how can I lose weight": (
        "Eat less and move more to become thinner.",
        "The weight of the elephant was four tons.",
        "I can lose my keys, how about you?",
    ),
    "why is the sky blue": (
        "Air scatters short wavelengths of sunlight, which colours the heavens azure.",
        "Why is the bus late? Blue tickets are for students.",
        "The sky is the limit, said the coach.",
    ),
}


@pytest.fixture(scope="module")
def encoder() -> Any:
    return AutoModel.from_pretrained(ENCODER).eval()


@pytest.mark.parametrize(("query", "place"), list(zip(QUERIES, (0, 2), strict=True)))
def test_cosine_ranks_the_paraphrase_first(encoder: Any, query: str, place: int) -> None:
    texts = list(QUERIES[query])
    texts.insert(place, texts.pop(0))
    grades = {f"d{place}": 1}

    judged = JudgedQuery("q", query, ("d0", "d1", "d2"), tuple(texts), grades)
    behind = JudgedQuery("q", texts[place - 1], ("d0", "d1", "d2"), tuple(texts), grades)

    known: dict[str, torch.Tensor] = {}
    assert by_cosine(encoder, judged, known) == 1
    assert known.keys() == {"d0", "d1", "d2"}
    assert by_cosine(encoder, behind, known) < 1, (
        "a query that equals another text ranks that text first"
    )


def test_padding_is_disabled_after_use(encoder: Any) -> None:
    before = token_ids(["rain", "rain and light"], 9)

    mean_states(encoder, ["rain", "rain and light"])

    assert token_ids(["rain", "rain and light"], 9) == before


@pytest.mark.slow
def test_mean_states_are_sentence_transformers_embeddings(encoder: Any) -> None:
    texts = [*QUERIES, *(text for of in QUERIES.values() for text in of), "rain " * 400, ""]
    reference = SentenceTransformer(str(ENCODER), device="cpu")
    reference.max_seq_length = evaluate.TOKENS_MAX

    found = mean_states(encoder, texts, batch_size=3)

    expected = torch.tensor(reference.encode(texts, normalize_embeddings=True))
    assert (found - expected).abs().max() < 1e-5


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_wins_ties_and_losses_are_all_queries_and_agree_with_the_figures(start: Path) -> None:
    found = compare(str(start), JUDGED, "float32", depth=8)

    assert found.queries == len(list(read_folder(JUDGED, depth=8).judged)) == 12
    assert found.wins + found.ties + found.losses == 12
    assert found.wins + found.losses > 0, "the models order differently"
    assert found.difference == pytest.approx(found.ndcg - found.cosine_ndcg)
    for figure, (low, high) in (
        (found.ndcg, found.interval_95),
        (found.cosine_ndcg, found.cosine_interval_95),
        (found.difference, found.difference_interval_95),
    ):
        assert low <= figure <= high
        assert low < high


def test_a_query_counts_as_won_tied_or_lost_by_its_own_figures(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    judged = list(read_folder(JUDGED, depth=8).judged)
    ours = [0.9, 0.5 + 1e-9, 0.1, *[0.5] * (len(judged) - 3)]
    results = tuple(
        QueryResult(each.qid, 8, value, value, None)
        for each, value in zip(judged, ours, strict=True)
    )

    class Measured:
        ndcg, interval_95, per_query = mean(ours), (0.0, 1.0), results

    monkeypatch.setattr(evaluate, "evaluate", lambda *_: Measured)
    monkeypatch.setattr(evaluate, "by_cosine", lambda *_: 0.5)

    run(evaluate.main, "--model", "any", "--data", JUDGED, "--json", tmp_path / "found.json")

    answer = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert (answer["wins"], answer["ties"], answer["losses"]) == (1, 10, 1)
    assert answer["difference"] == pytest.approx(0, abs=1e-9)
    assert "queries won 1, tied 10, lost 1" in capsys.readouterr().out
