"""The pairs of a step, its teacher and loss, and the equality of resumed and whole runs."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from serve_app.engine.embedded.model import ADAPTER, load
from training import train
from training.data import ENCODER
from training.groups import (
    DEVIATION,
    Group,
    Material,
    Options,
    Teacher,
    drawn,
    read,
    shortened,
    teacher_of,
)  # fmt: skip
from training.train import (
    correlation,
    gain,
    loss_of,
    losses_of,
    probe_of,
    rate,
    spearman,
    words,
)  # fmt: skip
from training.upper import Texts, means

Run = Callable[..., None]


def texts(count: int, seed: int) -> Texts:
    """Return texts of 12 to 40 tokens with random states."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(12, 41, (count,), generator=generator)
    starts = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    states = torch.randn(int(starts[-1]), 384, generator=generator).half()
    return Texts(states, starts, torch.zeros(int(starts[-1]), dtype=torch.int32))


def material(seed: int, *, asked: bool = True) -> Material:
    """Return a set with 30 documents, in which document ``n // 2`` answers query ``n``."""
    queries, documents = texts(60, seed), texts(30, seed + 100)
    answers, of_set = torch.arange(60) // 2, torch.full((60,), asked)
    vectors = [means([each[place] for place in range(len(each))]) for each in (queries, documents)]
    return Material(queries, documents, answers, of_set, *vectors)


@pytest.fixture(scope="module")
def two_sets() -> dict[str, Material]:
    return {"one": material(1), "other": material(2, asked=False)}


OPTIONS = Options(queries=8, documents=20)


@pytest.mark.parametrize("step", range(5))
def test_a_group_has_the_answer_of_each_query(step: int, two_sets: dict[str, Material]) -> None:
    group = drawn(two_sets, OPTIONS, step)

    assert (len(group.queries), len(group.documents)) == (8, 20)
    for query, answer, asked in zip(group.queries, group.answers, group.asked, strict=True):
        (own,) = (
            each
            for each in two_sets.values()
            if any(query.equal(each.queries[place]) for place in range(60))
        )
        place = next(place for place in range(60) if query.equal(own.queries[place]))
        whole, found = own.documents[place // 2], group.documents[answer]
        assert found[:-1].equal(whole[: len(found) - 1])
        assert asked == own.asked[place]


def test_a_group_depends_on_seed_and_step_only(two_sets: dict[str, Material]) -> None:
    first, again, other = (drawn(two_sets, OPTIONS, step) for step in (3, 3, 4))

    assert torch.cat(first.documents).equal(torch.cat(again.documents))
    assert not torch.cat(first.queries).equal(
        torch.cat(other.queries)[: len(torch.cat(first.queries))]
    )


def test_the_document_after_an_answer_may_be_a_piece_of_it(two_sets: dict[str, Material]) -> None:
    group = drawn(two_sets, Options(queries=8, documents=58), 0)

    assert group.alike.sum(1).max() <= 1
    assert group.alike.any()
    assert not group.alike.gather(1, group.answers[:, None]).any()


def test_shortened_documents_keep_their_start_and_their_last_token() -> None:
    states = torch.randn(60, 4)

    found = [shortened(states, random.Random(seed)) for seed in range(100)]

    cut = [each for each in found if len(each) < 60]
    assert 10 < len(cut) < 60
    assert all(each[:-1].equal(states[: len(each) - 1]) for each in cut)
    assert all(each[-1].equal(states[-1]) and len(each) > 10 for each in cut)


def test_the_teacher_has_its_deviation_and_its_zero_between_answers_and_others(
    two_sets: dict[str, Material],
) -> None:
    groups = [drawn(two_sets, OPTIONS, -1 - place) for place in range(12)]
    teacher = teacher_of(groups, OPTIONS)

    scores = [teacher(group) for group in groups]
    own = [s.gather(1, g.answers[:, None]) for s, g in zip(scores, groups, strict=True)]
    assert torch.cat(scores).std(1).mean() == pytest.approx(DEVIATION, rel=1e-3)
    assert torch.cat(own).mean() == pytest.approx(-torch.cat(scores).mean().item(), abs=1e-3)


def test_the_teacher_is_late_interaction_plus_cosine(two_sets: dict[str, Material]) -> None:
    group = drawn(two_sets, OPTIONS, 0)

    late, cosine, short = (
        Teacher(*each, 0.0)(group) for each in ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.1))
    )
    tokens = torch.tensor([len(document) for document in group.documents])

    assert short.allclose(late - 0.1 * tokens.log(), atol=1e-5)
    assert Teacher(3.0, 2.0, 0.1, 1.0)(group).allclose(3 * short + 2 * cosine - 1, atol=1e-5)
    assert cosine.allclose(means(group.queries) @ means(group.documents).T)


def group_of(answers: list[int], asked: list[bool]) -> Group:
    alike = torch.zeros(len(answers), 3, dtype=torch.bool)
    return Group([], [], torch.tensor(answers), torch.tensor(asked), alike)


def test_without_labels_the_teacher_itself_has_no_loss() -> None:
    wanted = torch.randn(2, 3)

    assert loss_of(wanted, wanted, group_of([0, 1], [True, True]), 0.0) == pytest.approx(
        0, abs=1e-6
    )
    assert loss_of(wanted + 0.5, wanted, group_of([0, 1], [True, True]), 0.0) > 0
    assert loss_of(-wanted, wanted, group_of([0, 1], [True, True]), 0.0) > 0


def test_labels_count_for_questions_only() -> None:
    wanted = torch.tensor([[2.0, 0.0, 1.0], [0.0, 2.0, 1.0]])

    def loss(answers: list[int], asked: list[bool]) -> float:
        return float(loss_of(wanted, wanted, group_of(answers, asked), 1.0))

    assert loss([0, 1], [False, False]) == pytest.approx(0, abs=1e-6)
    assert loss([0, 1], [True, True]) < loss([1, 1], [True, True])
    assert loss([0, 2], [True, False]) == loss([0, 1], [True, False])


def test_a_document_that_may_be_an_answer_too_does_not_count_as_wrong() -> None:
    wanted = torch.tensor([[0.0, 2.0, 0.0]])
    group = group_of([0], [True])
    strict = loss_of(wanted, wanted, group, 1.0)

    group.alike[0, 1] = True

    assert loss_of(wanted, wanted, group, 1.0) < strict


def test_words_are_all_tokens_but_the_first_and_the_last() -> None:
    real = torch.tensor([[True, True, True, True], [True, True, True, False]])

    assert words(real).tolist() == [False, True, True, False, False, True, False]


@pytest.mark.slow
def test_the_probe_tells_how_well_a_token_matches(computed: Path) -> None:
    sets = {"squad-v1.1-train": read(computed / "training-squad-v1.1-train.pt")}
    groups = [drawn(sets, OPTIONS, step) for step in range(4)]
    model = load(ENCODER, ADAPTER).eval()
    model.probe = probe_of(model, groups[:3])
    teacher = Teacher(1.0, 0.0, 0.0, 0.0)

    loss, missed = losses_of(model, groups[3], teacher, Options(matches=1.0))
    heavier, _ = losses_of(model, groups[3], teacher, Options(matches=3.0))

    assert missed < 0.5
    assert (heavier - loss).item() == pytest.approx(2 * missed.item(), abs=1e-3)


@pytest.mark.parametrize(("place", "expected"), [(0, 1.0), (1, 0.6309), (9, 0.2891), (10, 0.0)])
def test_ndcg_of_a_single_answer(place: int, expected: float) -> None:
    scores = -torch.arange(20).float()

    assert gain(scores, place) == pytest.approx(expected, abs=1e-4)


def test_correlations() -> None:
    rising = torch.tensor([1.0, 2.0, 3.0, 30.0])

    assert spearman(rising, rising.exp()) == pytest.approx(1)
    assert spearman(rising, -rising) == pytest.approx(-1)
    assert correlation(rising, rising.square()) < 1


def test_the_rate_warms_up_and_decays() -> None:
    rates = [rate(step, 100) for step in range(101)]

    assert rates[0] == pytest.approx(0.2)
    assert max(rates) == 1.0
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert rates[100] == pytest.approx(0.02)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_stopped_at_any_step_ends_like_a_whole_run(
    computed: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("--data", computed, "--steps", 4, "--queries", 4, "--documents", 10)
    run(train.main, *arguments, "--out", tmp_path / "whole", "--evaluations", 2)

    monkeypatch.setattr(train, "CHECKPOINT_S", 0.0)
    monkeypatch.setattr(train, "drawn", stopping_at(2))
    with pytest.raises(KeyboardInterrupt):
        run(train.main, *arguments, "--out", tmp_path / "parts", "--evaluations", 2)
    monkeypatch.setattr(train, "drawn", drawn)
    run(train.main, *arguments, "--out", tmp_path / "parts", "--evaluations", 2)

    whole, parts = (
        load_file(tmp_path / each / "model/model.safetensors") for each in ("whole", "parts")
    )
    assert whole.keys() == parts.keys()
    assert all(whole[name].equal(parts[name]) for name in whole)
    entries = [json.loads(line) for line in (tmp_path / "parts/log.jsonl").read_text().splitlines()]
    assert [each["step"] for each in entries] == [0, 2, 4]
    assert (tmp_path / "parts/curves.png").exists()


def stopping_at(last: int) -> Callable[..., Group]:
    def stopping(sets: dict[str, Material], options: Options, step: int) -> Group:
        if step == last:
            raise KeyboardInterrupt
        return drawn(sets, options, step)

    return stopping


def test_another_run_is_not_continued_with_other_options(
    tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "options.json").write_text("{}", encoding="utf-8")

    with pytest.raises(SystemExit):
        run(train.main, "--out", tmp_path)

    assert "holds a run with other options" in capsys.readouterr().err
