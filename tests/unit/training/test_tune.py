"""Whole pairs through all layers: their order, the distance of states, and a short run."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from training import tune
from training.data import CLS, SEP, Ids, collate
from training.lists import Material, draw
from training.states import LOWER, Texts, TrainingSet
from training.tune import BATCH, TuneOptions, pairs_of, score_whole, strayed, whole

# PEFT 0.21 uses a name that transformers 5.23 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

PAIRS: list[tuple[Ids, Ids]] = [
    ([1_000 + place] * (1 + place % 3), [2_000 + place] * (place * 7 % 20)) for place in range(19)
]


class FakeModel:
    """A fake model: the logit is the pair's sum of ids; after layer six, a token's state is its
    id."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, ...]] = []

    def __call__(self, input_ids: Any, output_hidden_states: bool, **_: Any) -> SimpleNamespace:
        assert output_hidden_states
        self.batches.append(tuple(input_ids.shape))
        hidden = [torch.full((*input_ids.shape, 1), -1.0)] * 9
        hidden[LOWER] = input_ids[:, :, None].float()
        return SimpleNamespace(logits=input_ids.sum(1, keepdim=True).float(), hidden_states=hidden)


def tokens(pair: tuple[Ids, Ids]) -> Ids:
    return [CLS, *pair[0], SEP, *pair[1], SEP]


def test_pairs_of_similar_length_are_batched_and_returned_in_order() -> None:
    model = FakeModel()

    made = whole(model, PAIRS)

    assert [state[:, 0].tolist() for state in made.states] == [tokens(pair) for pair in PAIRS]
    assert made.logits.tolist() == [sum(tokens(pair)) for pair in PAIRS]
    assert [rows for rows, _ in model.batches] == [BATCH, BATCH, 3]
    assert model.batches[0][1] > model.batches[1][1] > model.batches[2][1]


def material() -> Material:
    """Return a set with two questions and three documents; a token's state is its id."""
    queries, documents = ((CLS, 5, SEP), (CLS, 6, 7, SEP)), ((8, 9, SEP), (SEP,), (10, SEP))
    texts = TrainingSet(of(queries), of(documents), [0, 1], [[], []])
    return Material(texts, [[], []], (torch.empty(0), torch.empty(0)), [1], None)


def of(texts: tuple[tuple[int, ...], ...]) -> Texts:
    ids = torch.tensor([token for text in texts for token in text], dtype=torch.int32)
    starts = torch.tensor([0, *map(len, texts)]).cumsum(0)
    return Texts(ids[:, None].half(), starts, ids)


def test_a_list_s_pairs_are_its_question_with_each_document() -> None:
    texts = material().texts

    assert pairs_of(texts, 1, [2, 0, 1]) == [([6, 7], [10]), ([6, 7], [8, 9]), ([6, 7], [])]
    assert score_whole(FakeModel(), texts, 0, [2]).tolist() == [CLS + 5 + SEP + 10 + SEP]


def test_the_state_loss_is_the_squared_distance_with_equal_weights() -> None:
    lists = [(material(), 0, [0, 2]), (material(), 1, [1])]
    pairs = [([5], [8, 9]), ([5], [10]), ([6, 7], [])]
    same = whole(FakeModel(), pairs).states

    in_query = [state.clone() for state in same]
    in_query[0][:3] += 3  # The first pair's query: squared distance 9, half a pair, one of three.
    in_document = [state.clone() for state in same]
    in_document[0][3:] += 3

    assert strayed(same, lists) == 0
    assert strayed(in_query, lists).item() == pytest.approx(9 / 2 / 3)
    assert strayed(in_document, lists).item() == pytest.approx(9 / 2 / 3)


@pytest.mark.slow
@pytest.mark.timeout(600)
@torch.no_grad()  # type: ignore[untyped-decorator]  # torch is Any to mypy here
def test_logits_are_those_of_the_model(start: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(start).eval()

    expected = model(**collate(PAIRS).inputs).logits[:, 0]

    assert (whole(model, PAIRS).logits - expected).abs().max() < 1e-3


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_reduces_the_distance_of_states_and_changes_all_layers(
    start: Path, computed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune, "draw", lambda sets, options, _: draw(sets, options, 0))
    monkeypatch.setattr(tune, "HELD_OUT_QUESTIONS", 1)
    options = TuneOptions(
        steps=6, queries=1, negatives=2, rank=2, learning_rate=1e-3, states_weight=20, evaluations=3
    )

    tune.tune(start, computed, tmp_path, options)

    lines = (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()
    log = [json.loads(line) for line in lines]
    before, after = (load_file(each / "model.safetensors") for each in (start, tmp_path / "model"))
    layers = [name for name in after if name.startswith("bert.encoder.layer.")]
    changed = {name.split(".")[3] for name in layers if not after[name].equal(before[name])}
    assert [entry["step"] for entry in log] == [0, 2, 4, 6]
    assert all(0 < entry[name] <= 1 for entry in log for name in ("held_out_mrr", "ndcg"))
    assert log[3]["loss"] < log[1]["loss"]
    assert changed >= set("01234567")
    assert after["bert.embeddings.word_embeddings.weight"].equal(
        before["bert.embeddings.word_embeddings.weight"]
    )
