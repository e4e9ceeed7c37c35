"""Logits equal transformers' own in any batch, and model failures are reported."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from serve_app.domain.errors import EngineFailure
from serve_app.domain.model import Portion
from serve_app.domain.units import RequestId
from serve_app.engine.assembly import assemble
from serve_app.engine.limits import EngineLimits
from serve_app.engine.loading import load_engine, load_tokenizer
from serve_app.ports import Engine
from testkit.reference import job, portion, reference_logits, tokenize_pairs
from testkit.tiny_models import FAMILIES, POISON, build_poison_crash, build_poison_nan
from testkit.tokenized import pairs_in
from tests.support.varied_pairs import varied_pairs

pytestmark = pytest.mark.slow  # Compares models of several families.

LIMITS = EngineLimits(batch_tokens_max=8_192)
TOLERANCE = 1e-4


def load(folder: Path, precision: str = "float32") -> Engine:
    return load_engine(str(folder), None, precision, LIMITS)


@pytest.mark.parametrize("family", FAMILIES)
def test_500_varied_pairs_have_the_logits_of_transformers(
    folders: dict[str, Path], family: str
) -> None:
    pairs = varied_pairs(500, words_max=12, long_texts=2)
    expected = reference_logits(folders[family], pairs)

    tokenized = tokenize_pairs(load_tokenizer(str(folders[family])), pairs)
    logits = load(folders[family]).score([portion(tokenized)])[0]

    assert logits == pytest.approx(expected, abs=TOLERANCE)
    assert max(logits) - min(logits) > 100 * TOLERANCE, "a constant would pass the line above"


def test_a_pair_scores_the_same_alone_and_in_any_batch(folders: dict[str, Path]) -> None:
    engine = load(folders["bert"])
    pairs = tokenize_pairs(load_tokenizer(str(folders["bert"])), varied_pairs(120, long_texts=1))

    together = engine.score([portion(pairs[:50]), portion([]), portion(pairs[50:])])
    alone = [engine.score([portion([pair])])[0][0] for pair in pairs]

    assert [len(logits) for logits in together] == [50, 0, 70]
    assert [*together[0], *together[2]] == pytest.approx(alone, abs=TOLERANCE)


def test_no_portions_have_no_logits(folders: dict[str, Path]) -> None:
    assert load(folders["bert"]).score([]) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_the_engine_warms_up_and_passes_its_check(folders: dict[str, Path], family: str) -> None:
    engine = load(folders[family])

    engine.warm_up()
    engine.check()

    assert engine.device in {"cpu", "cuda"}
    assert engine.precision == "float32"
    assert engine.description.startswith("cross-encoder ")


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_logits_stay_near_float32_and_fine_grained(
    folders: dict[str, Path], family: str
) -> None:
    """A head in bfloat16 would return only bfloat16 values."""
    documents = [document for _, document in varied_pairs(200, words_max=20, long_texts=0)]
    pairs = pairs_in(load_tokenizer(str(folders[family])).tokenize(job("river bridge", documents)))

    exact = load(folders[family]).score([portion(pairs)])[0]
    engine = load(folders[family], "bfloat16")
    short = engine.score([portion(pairs)])[0]

    on_coarse_values = sum(torch.tensor(logit).bfloat16().item() == logit for logit in short)
    assert engine.precision == "bfloat16"
    assert on_coarse_values < 0.1 * len(short)
    assert short == pytest.approx(exact, abs=0.35), "random weights of 0.3 amplify every rounding"


def test_a_faulty_pair_is_nan_and_its_neighbours_are_not(tmp_path: Path) -> None:
    folder = build_poison_nan(tmp_path / "nan")
    engine = load(folder)
    engine.warm_up()
    assert engine.description.endswith("by OpenVINO") == (engine.device == "cpu")
    pairs = pairs_in(load_tokenizer(str(folder)).tokenize(job("cat", ["dog", POISON, "the dog"])))

    logits = engine.score([portion(pairs)])[0]

    assert [math.isnan(logit) for logit in logits] == [False, True, False]


def test_an_id_outside_the_vocabulary_is_an_engine_failure(tmp_path: Path) -> None:
    folder = build_poison_crash(tmp_path / "crash")
    engine = load(folder)
    engine.warm_up()
    tokenizer = load_tokenizer(str(folder))

    with pytest.raises(EngineFailure, match="outside the vocabulary"):
        engine.score([portion(pairs_in(tokenizer.tokenize(job("cat", [POISON]))))])

    engine.score([portion(pairs_in(tokenizer.tokenize(job("cat", ["dog"]))))])


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("no room"), ValueError("a model's own code"), MemoryError("no room")],
)
def test_a_model_that_raises_is_an_engine_failure(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def raises(*_: object, **__: object) -> None:
        raise error

    engine = assemble("distilbert", folders["distilbert"], "float32", LIMITS)
    monkeypatch.setattr(torch.nn.Linear, "forward", raises)

    with pytest.raises(EngineFailure, match=f"{type(error).__name__}: {error}"):
        engine.check()


def test_warm_up_reports_a_lack_of_memory_in_one_line(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def raises(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nDetails")

    engine = assemble("distilbert", folders["distilbert"], "float32", LIMITS)
    monkeypatch.setattr(torch.nn.Linear, "forward", raises)

    with pytest.raises(EngineFailure) as failure:
        engine.warm_up()

    assert str(failure.value) == (
        "cpu lacks memory for a pass of 1 x 512 tokens; lower batch_tokens_max or "
        "forward_tokens_max (CUDA out of memory. Tried to allocate 2 GiB.)"
    )


def test_warm_up_fails_if_special_tokens_give_nan(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load(folders["bert"])
    monkeypatch.setattr(engine, "score", lambda portions: [[math.nan] for _ in portions])

    with pytest.raises(EngineFailure, match="special tokens is nan"):
        engine.warm_up()


@pytest.mark.parametrize(("forward_tokens_max", "pairs"), [(20_000, 16), (1_024, 2), (16, 1)])
def test_warm_up_runs_the_largest_pass(
    folders: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    forward_tokens_max: int,
    pairs: int,
) -> None:
    limits = replace(LIMITS, forward_tokens_max=forward_tokens_max)
    engine = load_engine(str(folders["bert"]), None, "float32", limits)
    seen: list[Portion] = []

    def score(portions: list[Portion]) -> list[list[float]]:
        seen.extend(portions)
        return [[0.0] * len(portion.lengths) for portion in portions]

    monkeypatch.setattr(engine, "score", score)
    engine.warm_up()

    assert seen[0].lengths == (512,) * pairs
    assert seen[1].lengths == (3, 3)


def test_an_inconsistent_portion_is_an_engine_failure(folders: dict[str, Path]) -> None:
    with pytest.raises(EngineFailure):
        load(folders["bert"]).score([Portion(RequestId("r1"), b"\0" * 8, (3,), (1,))])
