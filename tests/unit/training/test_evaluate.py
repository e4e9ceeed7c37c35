"""The comparison of cross-encoders with their encoder."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel

from testkit.judged import JudgedQuery
from tests.support.training_texts import JUDGED
from training import evaluate
from training.data import ENCODER, token_ids
from training.evaluate import correlation, encode, encoder_scores, figures, late_interaction, table

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


@pytest.mark.parametrize("query", list(QUERIES))
def test_cosine_ranks_the_paraphrase_first(encoder: Any, query: str) -> None:
    judged = JudgedQuery("q", query, ("d0", "d1", "d2"), QUERIES[query], {"d0": 1})

    found = encoder_scores(encode(encoder, [query, *QUERIES[query]]), judged)

    assert found["cosine"].argmax() == 0
    assert list(found["bm25"]) == sorted(found["bm25"], reverse=True)
    both = [(each - each.mean()) / each.std() for each in (found["maxsim"], found["cosine"])]
    assert found["maxsim+cosine"] == pytest.approx(sum(both))


def test_texts_are_encoded_alike_in_any_batch(encoder: Any) -> None:
    texts = ["rain", "rain and light", *QUERIES]

    together, alone = encode(encoder, texts), encode(encoder, texts[:1])

    assert len(together) == 4
    assert (together["rain"].mean - alone["rain"].mean).abs().max() < 1e-5
    assert len(together["rain and light"].tokens) == 3, "without [CLS] and [SEP]"
    assert together["rain"].tokens.float().norm(dim=1) == pytest.approx(1, abs=1e-3)


def test_padding_is_disabled_after_use(encoder: Any) -> None:
    before = token_ids(["rain", "rain and light"], 9)

    encode(encoder, ["rain", "rain and light"])

    assert token_ids(["rain", "rain and light"], 9) == before


@pytest.mark.slow
def test_mean_states_are_sentence_transformers_embeddings(encoder: Any) -> None:
    texts = [*QUERIES, *(text for of in QUERIES.values() for text in of), "rain " * 400, ""]
    reference = SentenceTransformer(str(ENCODER), device="cpu")
    reference.max_seq_length = evaluate.TOKENS_MAX

    found = encode(encoder, texts, batch_size=3)

    expected = torch.tensor(reference.encode(texts, normalize_embeddings=True))
    assert (torch.stack([found[text].mean for text in texts]) - expected).abs().max() < 1e-5


def test_late_interaction_is_the_mean_of_soft_maxima() -> None:
    query, document = torch.eye(3)[:2], torch.eye(3)[1:]

    found = late_interaction(query, document)

    lines = [np.log(np.exp(20 * np.array(each)).sum()) / 20 for each in ([0, 0], [1, 0])]
    assert found == pytest.approx(np.mean(lines), abs=1e-6)
    assert late_interaction(query, document[:0]) == 0


def test_correlation_is_of_ranks_and_needs_values_that_differ() -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0, 50.0])

    assert correlation(values, values**3) == pytest.approx(1)
    assert correlation(values, -values) == pytest.approx(-1)
    assert correlation(values, np.ones(5)) is None
    assert correlation(values[:4], values[:4]) is None


def test_a_method_is_summarised_over_queries_and_lengths() -> None:
    docids = tuple(f"d{place}" for place in range(10))
    judged = [
        JudgedQuery(qid, "q", docids, ("",) * 10, {best: 1})
        for qid, best in (("a", "d9"), ("b", "d0"))
    ]
    lengths = [np.array([10] * 5 + [100, 101, 102, 103, 104])] * 2
    rising = [np.arange(10.0)] * 2
    mixed = [np.array([*range(5), *range(10, 5, -1)], dtype=float)] * 2

    found = figures(judged, mixed, rising, lengths)
    best = figures(judged, rising, rising, lengths)

    assert best.ndcg == pytest.approx(0.5 + 0.5 / np.log2(11))
    assert found.ndcg < best.ndcg
    assert found.maxsim_correlation["1 to 64"] == pytest.approx(1)
    assert found.maxsim_correlation["65 to 128"] == pytest.approx(-1)
    assert found.maxsim_correlation["129 to 256"] is None
    assert best.length_correlation is not None
    assert found.length_correlation is not None
    assert best.length_correlation > found.length_correlation > 0


@pytest.mark.slow
def test_the_command_writes_all_methods_and_a_table(
    tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "found.json"

    run(evaluate.main, JUDGED, "--model", "embedded", "--limit", "3", "--json", path)

    (found,) = json.loads(path.read_text(encoding="utf-8"))
    assert (found["collection"], found["queries"], found["pairs"]) == ("data", 3, 24)
    assert list(found["methods"]) == ["bm25", "cosine", "maxsim", "maxsim+cosine", "embedded"]
    printed = capsys.readouterr().out
    assert f"| data | 3 | {found['methods']['bm25']['ndcg']:.4f} |" in printed
    assert found["methods"]["maxsim"]["maxsim_correlation"]["1 to 64"] == pytest.approx(1)


def test_the_table_ends_with_the_mean_over_collections() -> None:
    def of(name: str, gain: float) -> evaluate.Evaluation:
        bands: dict[str, float | None] = {
            f"{low} to {high}": gain for low, high in evaluate.LENGTHS
        }
        method = evaluate.Figures(gain, (0, 1), None, bands)
        return evaluate.Evaluation(name, 2, 9, {"bm25": method})

    lines = table([of("first", 0.25), of("second", 0.75)])

    assert "| mean | | 0.5000 |" in lines
    assert lines[-1] == "| bm25 |  | 0.50 | 0.50 | 0.50 |"
