"""The lists of a step, its loss, and the equality of resumed and uninterrupted runs."""

import json
import math
import random
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import training.run
from training import train
from training.lists import HELD_OUT, SHARES, Material, candidates, draw, mine
from training.run import Options, keep, rate, resume
from training.states import Texts, TrainingSet
from training.teachers import cosines, late_interaction, lexical, teach
from training.train import loss_of

Run = Callable[..., None]

# PEFT 0.21 uses a name that transformers 5.23 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

OWN = [21, 22, 23, 24, 25, 26]
"""The set's own negatives for every question of `material`; documents 30 to 49 are mined."""


def material(questions: int) -> Material:
    """Return a set with 60 documents, in which document ``n % 20`` answers question ``n``."""
    nothing = texts_of(torch.zeros(questions, 1), torch.arange(questions + 1))
    documents = texts_of(torch.zeros(60, 1), torch.arange(61))
    positives = [place % 20 for place in range(questions)]
    texts = TrainingSet(nothing, documents, positives, [OWN] * questions)
    trained = [index for index in range(questions) if index % HELD_OUT]
    mined = [list(range(30, 50))] * questions
    return Material(texts, mined, (torch.empty(0), torch.empty(0)), trained, None)


def texts_of(states: torch.Tensor, starts: torch.Tensor, *ids: int) -> Texts:
    tokens = torch.tensor(ids) if ids else torch.zeros(len(states))
    return Texts(states.half(), starts, tokens.int())


def sets(questions: int) -> dict[str, Material]:
    return {name: material(questions) for name in SHARES}


@pytest.mark.parametrize(
    ("negatives", "mined", "own", "found"),
    [(15, 0.6, 5, 9), (15, 0.0, 5, 0), (6, 0.5, 2, 3), (2, 1.0, 0, 2), (30, 1.0, 6, 20)],
)
def test_candidates_are_the_answer_then_as_many_of_each_kind_as_asked(
    negatives: int, mined: float, own: int, found: int
) -> None:
    for seed in range(20):
        listed = candidates(material(40), 7, negatives, mined, random.Random(seed))

        assert listed[0] == 7
        assert len(listed) == len(set(listed)) == negatives + 1
        assert listed[1 : own + 1] == OWN[:own]
        assert set(listed[own + 1 : own + 1 + found]) <= set(range(30, 50))


def test_an_answer_or_text_named_twice_is_a_candidate_once() -> None:
    twice = material(40)
    twice.texts.negatives[7] = [7, 21, 21, 22, 7]

    listed = candidates(twice, 7, 15, 0.0, random.Random(0))

    assert listed[:3] == [7, 21, 22]
    assert len(set(listed)) == 16


def test_the_same_seed_and_step_draw_the_same_and_others_do_not() -> None:
    def drawn(seed: int, step: int) -> list[tuple[int, list[int]]]:
        lists = draw(sets(70), Options(seed=seed), step)
        return [(index, listed) for _, index, listed in lists]

    assert drawn(0, 5) == drawn(0, 5)
    assert len(drawn(0, 5)) == Options().queries
    assert drawn(0, 5) != drawn(0, 6)
    assert drawn(0, 5) != drawn(1, 5)


@pytest.mark.parametrize("questions", [20, 21, 25, 39, 40, 41, 70])
def test_held_out_questions_are_never_drawn_and_all_others_are(questions: int) -> None:
    material_of = sets(questions)

    drawn = {
        index
        for step in range(300)
        for _, index, _ in draw(material_of, Options(queries=8, negatives=2), step)
    }

    assert drawn == {index for index in range(questions) if index % HELD_OUT}


def test_sets_are_drawn_by_their_shares() -> None:
    material_of = sets(40)

    drawn = [
        list(material_of).index(name)
        for step in range(500)
        for found, _, _ in draw(material_of, Options(negatives=2), step)
        for name, each in material_of.items()
        if each is found
    ]

    for place, share in enumerate(SHARES.values()):
        assert drawn.count(place) / len(drawn) == pytest.approx(share, abs=0.04)


def test_near_texts_are_mined_without_the_answer_and_its_duplicates() -> None:
    angles = torch.tensor([0.0, 0.1, 0.8, 1.0, 3.0]) + 0.3
    documents = torch.stack([angles.cos(), angles.sin()], 1)
    query = torch.tensor([[1.0, 0.0], [3.0, 0.0]])  # Two tokens, one direction.
    texts = TrainingSet(
        texts_of(query, torch.tensor([0, 2])),
        texts_of(documents, torch.arange(6)),
        positives=[0],
        negatives=[[]],
    )

    found = mine(texts)

    assert found.mined == [[2, 3, 4]], "1 is too similar to the answer; the most similar come first"
    assert found.means[0].norm(dim=1).tolist() == pytest.approx([1])


def test_more_documents_than_a_set_has_are_refused() -> None:
    assert len(candidates(material(40), 7, 59, 0.6, random.Random(0))) == 60

    with pytest.raises(ValueError, match="60 negatives of 60 documents"):
        candidates(material(40), 7, 60, 0.6, random.Random(0))


def turned(*degrees: float) -> torch.Tensor:
    """Return token states in these directions, with different lengths."""
    angles = torch.tensor(degrees).deg2rad()
    lengths = torch.arange(1, len(degrees) + 1)[:, None]
    return torch.stack([angles.cos(), angles.sin()], 1) * lengths


def two_documents() -> list[tuple[Material, int, list[int]]]:
    """Return a query with tokens at 0 and 90 degrees between [CLS] and [SEP], and two documents:
    one with the same tokens, one with tokens between them."""
    texts = TrainingSet(
        texts_of(turned(200, 0, 90, 45), torch.tensor([0, 4])),
        texts_of(turned(0, 90, 180, 45, 45, 50, 200), torch.tensor([0, 3, 7])),
        positives=[0],
        negatives=[[]],
    )
    return [(mine(texts), 0, [0, 1])]


def test_late_interaction_matches_tokens_and_cosine_compares_means() -> None:
    late, means = late_interaction(two_documents())[0], cosines(two_documents())[0]

    assert late.tolist() == pytest.approx([1.0, 0.72 + math.log(3) / 20], abs=0.02)
    assert means[1] > means[0]


def test_bm25_finds_rare_tokens_in_short_documents() -> None:
    # 101 and 102 are special tokens. All documents contain 7; two contain 8, one of them is longer.
    texts = TrainingSet(
        texts_of(torch.zeros(4, 1), torch.tensor([0, 4]), 101, 7, 8, 102),
        texts_of(
            torch.zeros(12, 1),
            torch.tensor([0, 3, 6, 12]),
            *(7, 9, 102),
            *(7, 8, 102),
            *(7, 8, 9, 9, 9, 102),
        ),
        positives=[0],
        negatives=[[]],
    )

    (scores,) = lexical([(mine(texts), 0, [0, 1, 2])])

    assert scores[1] > scores[2] > scores[0]


def test_teachers_are_standardised_and_summed() -> None:
    def taught(teacher: str) -> list[float]:
        options = Options(teacher=teacher, negatives=1)
        found: list[float] = teach(None, options, two_documents())[0].tolist()
        return found

    high = math.sqrt(2)  # The higher of two numbers with mean 0 and deviation 2.
    assert taught("late") == pytest.approx([high, -high])
    assert taught("cosine") == pytest.approx([-high, high])
    assert taught("late+cosine") == pytest.approx([0, 0], abs=0.1), "they disagree"
    assert taught("late+late+cosine") == pytest.approx([high, -high])


@pytest.mark.parametrize("loss", ["listwise", "pairwise"])
@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_the_loss_falls_as_the_answer_rises(loss: str, weight: float) -> None:
    options = Options(loss=loss, teacher_weight=weight)
    taught = torch.tensor([[3.0, 0.0, -1.0]])

    losses = [
        loss_of(torch.tensor([[answer, 0.5, -0.5]]), taught, options).item()
        for answer in (-2.0, -1.0, 0.0, 1.0, 2.0)
    ]

    assert losses == sorted(losses, reverse=True)
    assert losses[0] > losses[-1] + 1


def test_a_teacher_alone_is_best_repeated_whatever_the_answer() -> None:
    options = Options(teacher_weight=1.0)
    taught = torch.tensor([[-1.0, 2.0, 0.0]])

    assert loss_of(taught + 5, taught, options).item() == pytest.approx(0, abs=1e-6)
    assert loss_of(-taught, taught, options) > 0.5


def test_the_rate_warms_up_and_falls_to_a_twentieth() -> None:
    rates = [rate(step, 200) for step in range(200)]

    assert rates[:10] == pytest.approx([0.1 * each for each in range(1, 11)])
    assert max(rates) == pytest.approx(1)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(0.05, abs=0.001)


def test_a_checkpoint_brings_back_weights_and_optimizer(tmp_path: Path) -> None:
    def fresh(seed: int) -> tuple[dict[str, Any], Any]:
        torch.manual_seed(seed)
        weights = dict(torch.nn.Linear(3, 2).named_parameters())
        return weights, torch.optim.AdamW(weights.values(), lr=0.1)

    def step(weights: dict[str, Any], optimizer: Any, number: int) -> None:
        optimizer.zero_grad()
        sum((each * (number + 1)).sin().sum() for each in weights.values()).backward()
        optimizer.step()

    weights, optimizer = fresh(0)
    assert resume(tmp_path / "checkpoint.pt", weights, optimizer) == (0, [])
    for number in range(3):
        step(weights, optimizer, number)
    keep(tmp_path / "checkpoint.pt", 3, weights, optimizer, [0.5, 0.25])
    other, other_optimizer = fresh(1)

    assert resume(tmp_path / "checkpoint.pt", other, other_optimizer) == (3, [0.5, 0.25])
    for each, its_optimizer in ((weights, optimizer), (other, other_optimizer)):
        step(each, its_optimizer, 3)

    for name, value in weights.items():
        assert other[name].equal(value)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_the_folder_of_another_run_is_refused(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begun: list[Options] = []
    monkeypatch.setattr(
        train, "train", lambda _start, _states, _out, options: begun.append(options)
    )
    run(train.main, "--out", tmp_path / "run", "--steps", "7", "--learning-rate", "0.01")
    run(train.main, "--out", tmp_path / "run", "--learning-rate", "0.01", "--steps", "7")

    with pytest.raises(SystemExit, match="2"):
        run(train.main, "--out", tmp_path / "run", "--steps", "8", "--learning-rate", "0.01")

    assert begun == [Options(steps=7, learning_rate=0.01)] * 2
    assert "holds a run with other options" in capsys.readouterr().err
    stated = json.loads((tmp_path / "run/options.json").read_text(encoding="utf-8"))
    assert stated == asdict(begun[0])


def test_an_unknown_teacher_is_refused(
    tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(train.main, "--out", tmp_path / "run", "--teacher", "late+bm26")

    assert "unknown teacher 'bm26'; known: start, cosine, late, bm25" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


OPTIONS = Options(steps=4, queries=3, negatives=4, rank=2, learning_rate=0.01)


class StoppedError(Exception):
    """Raised in place of a power failure."""


@pytest.fixture(scope="module")
def through(start: Path, computed: Path) -> Path:
    """The folder of an uninterrupted run."""
    folder = start.with_name("through")
    folder.mkdir()
    train.train(start, computed, folder, OPTIONS)
    return folder


def entries(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_leaves_a_log_curves_and_a_model_that_learned(through: Path, start: Path) -> None:
    log = entries(through)
    before, after = (load_file(each / "model.safetensors") for each in (start, through / "model"))
    changed = {name for name, value in after.items() if not value.equal(before[name])}

    assert [entry["step"] for entry in log] == [0, 1, 2, 3, 4]
    assert log[0]["loss"] is None
    assert all(entry["loss"] > 0 for entry in log[1:])
    assert all(0 < entry[name] <= 1 for entry in log for name in ("held_out_mrr", "ndcg"))
    assert (through / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert before.keys() == after.keys()
    assert all(
        name.startswith(("bert.encoder.layer.6.", "bert.encoder.layer.7.", "classifier."))
        or name == "bert.pooler.dense.bias"
        for name in changed
    )
    assert {"bert.encoder.layer.6.attention.self.query.weight", "classifier.weight"} <= changed


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_resumed_run_gives_the_weights_of_an_uninterrupted_one(
    through: Path, start: Path, computed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = start.with_name("stopped")
    folder.mkdir()
    monkeypatch.setattr(training.run, "CHECKPOINT_S", -1.0)
    drawn: list[int] = []

    def stopping(sets: dict[str, Material], options: Options, step: int) -> Any:
        drawn.append(step)
        if drawn == [0, 1, 2]:
            raise StoppedError
        return draw(sets, options, step)

    monkeypatch.setattr(train, "draw", stopping)
    with pytest.raises(StoppedError):
        train.train(start, computed, folder, OPTIONS)
    assert not (folder / "model").exists()

    train.train(start, computed, folder, OPTIONS)

    assert drawn == [0, 1, 2, 2, 3], "steps 0 and 1 are not repeated"
    expected = load_file(through / "model/model.safetensors")
    for name, value in load_file(folder / "model/model.safetensors").items():
        assert value.equal(expected[name]), name
    assert entries(folder) == entries(through), "step 2 is logged once"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("loss", ["listwise", "pairwise"])
def test_training_lowers_the_loss_of_what_it_is_trained_on(
    loss: str, start: Path, computed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = replace(OPTIONS, steps=10, loss=loss, learning_rate=1e-3, teacher_weight=0.2)
    monkeypatch.setattr(train, "draw", lambda sets, options, _: draw(sets, options, 0))
    monkeypatch.setattr(train, "held_out_rank", lambda *_: 1.0)
    monkeypatch.setattr(train, "judge", lambda *_: 1.0)

    train.train(start, computed, tmp_path, options)

    losses = [entry["loss"] for entry in entries(tmp_path)[1:]]
    assert losses[-1] < 0.8 * losses[0]
