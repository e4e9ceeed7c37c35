"""Models that sentence-transformers saves have the logits of its `CrossEncoder`."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from sentence_transformers import CrossEncoder
from sentence_transformers.sentence_transformer.modules import Pooling

from serve_app.engine.limits import EngineLimits
from serve_app.engine.loading import load_engine, load_tokenizer
from serve_app.engine.saved_modules import saved_activation
from serve_app.engine.sources import ModelLoadError
from serve_app.ports import Engine
from testkit.reference import portion, tokenize_pairs
from testkit.tiny_models import build
from tests.support.modular_models import HEADS, WIDTH, build_modular, scores
from tests.support.varied_pairs import varied_pairs

pytestmark = pytest.mark.slow  # Loads and compares models of several families.

LIMITS = EngineLimits(batch_tokens_max=8_192, threads=1)
TOLERANCE = 1e-4
IDENTITY = "torch.nn.modules.linear.Identity"
PAIRS = varied_pairs(100, words_max=12, long_texts=2)


def load(folder: Path, precision: str = "float32") -> Engine:
    return load_engine(str(folder), None, precision, LIMITS)


def logits_of(engine: Engine, folder: Path) -> list[float]:
    pairs = tokenize_pairs(load_tokenizer(str(folder)), PAIRS)
    return engine.score([portion(pairs)])[0]


def reference(folder: Path) -> list[float]:
    model = CrossEncoder(str(folder), device="cpu", activation_fn=torch.nn.Identity())
    logits: list[float] = model.predict(PAIRS, show_progress_bar=False).tolist()
    return logits


def assert_equal(logits: list[float], expected: list[float]) -> None:
    assert logits == pytest.approx(expected, abs=TOLERANCE)
    assert max(logits) - min(logits) > 100 * TOLERANCE, "a constant would pass the line above"


def modular(tmp_path: Path, base: Path, head: list[Any]) -> Path:
    return build_modular(tmp_path / "modular", base, head)


def change(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("family", ["deberta_v2", "electra", "modernbert"])
def test_a_model_with_its_own_head_equals_sentence_transformers(
    folders: dict[str, Path], tmp_path: Path, family: str
) -> None:
    """Newer versions of sentence-transformers save even one transformer as a list of modules."""
    saved = tmp_path / "saved"
    CrossEncoder(str(folders[family]), device="cpu").save_pretrained(str(saved))

    logits = logits_of(load(saved), saved)

    assert (saved / "modules.json").exists()
    assert_equal(logits, reference(saved))
    assert logits == pytest.approx(logits_of(load(folders[family]), folders[family]))


@pytest.mark.parametrize(
    ("family", "head"),
    [
        ("modernbert", "ettin"),
        ("bert", "ettin"),
        ("roberta", "mean"),
        ("deberta_v2", "two_ways"),
        ("modernbert", "mean"),
        ("electra", "tokens"),
    ],
)
def test_a_head_of_modules_equals_sentence_transformers(
    folders: dict[str, Path], tmp_path: Path, family: str, head: str
) -> None:
    folder = modular(tmp_path, folders[family], HEADS[head]())

    engine = load(folder)

    assert_equal(logits_of(engine, folder), reference(folder))
    assert " with " in engine.description


def test_the_encoder_has_reduced_precision_and_the_head_has_not(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = modular(tmp_path, folders["modernbert"], HEADS["ettin"]())
    engine = load(folder, "bfloat16")

    engine.warm_up()
    engine.check()
    logits = logits_of(engine, folder)

    assert engine.precision == "bfloat16"
    assert logits == pytest.approx(reference(folder), abs=0.35)
    coarse = sum(torch.tensor(logit).bfloat16().item() == logit for logit in logits)
    assert coarse < 0.1 * len(logits)


def load_error(folder: Path) -> str:
    with pytest.raises(ModelLoadError) as refused:
        load(folder)
    message = str(refused.value)
    assert message.startswith(f"model {folder}: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("head", "says"),
    [
        ([Pooling(WIDTH, "cls"), scores(WIDTH, labels=2)], "gives 2 scores"),
        (
            [Pooling(WIDTH, "weightedmean"), scores(WIDTH)],
            "pooling by weightedmean is not supported",
        ),
        ([Pooling(WIDTH, "cls")], "scores"),
        ([Pooling(WIDTH, "cls"), scores(WIDTH + 1)], "its modules cannot be loaded"),
    ],
)
def test_a_head_that_gives_no_single_score_is_refused(
    folders: dict[str, Path], tmp_path: Path, head: list[Any], says: str
) -> None:
    assert says in load_error(modular(tmp_path, folders["bert"], head))


@pytest.mark.parametrize(
    ("file", "changes", "says"),
    [
        ("2_Dense/config.json", {"activation_function": "acme.Steps"}, "acme.Steps, which is not"),
        ("2_Dense/config.json", {"activation_function": "torch.nn.init.zeros_"}, "no activation"),
        ("1_Pooling/config.json", {"pooling_mode": []}, "its modules cannot be loaded"),
        (
            "config_sentence_transformers.json",
            {"default_prompt_name": "query", "prompts": {"query": "Rank: "}},
            "a prompt before every text",
        ),
        ("sentence_bert_config.json", {"transformer_task": "text-generation"}, "text-generation"),
        ("sentence_bert_config.json", {"modality_config": {"message": {}}}, "pairs as a chat"),
        ("sentence_bert_config.json", {"do_lower_case": True}, "do_lower_case"),
    ],
)
def test_a_model_that_the_engine_cannot_compute_is_refused(
    folders: dict[str, Path], tmp_path: Path, file: str, changes: dict[str, Any], says: str
) -> None:
    folder = modular(tmp_path, folders["bert"], HEADS["ettin"]())
    change(folder / file, **changes)

    assert says in load_error(folder)


@pytest.mark.parametrize(
    ("position", "changes", "says"),
    [
        (0, {"path": "0_Transformer"}, "another folder than the root"),
        (2, {"path": "../2_Dense"}, "not a folder of the model"),
        (2, {"type": "acme.modules.Dense"}, "acme.modules.Dense, whose code is not trusted"),
        (2, {"type": "sentence_transformers.models.LSTM"}, "the module LSTM, which is not"),
        (2, {"type": None}, "are damaged"),
    ],
)
def test_a_module_that_the_engine_does_not_know_is_refused(
    folders: dict[str, Path], tmp_path: Path, position: int, changes: dict[str, Any], says: str
) -> None:
    folder = modular(tmp_path, folders["bert"], HEADS["ettin"]())
    modules = json.loads((folder / "modules.json").read_text())
    modules[position] |= changes
    (folder / "modules.json").write_text(json.dumps(modules))

    assert says in load_error(folder)


@pytest.mark.parametrize("file", ["2_Dense/model.safetensors", "model.safetensors"])
def test_missing_weights_are_reported(folders: dict[str, Path], tmp_path: Path, file: str) -> None:
    folder = modular(tmp_path, folders["bert"], HEADS["ettin"]())
    (folder / file).unlink()

    assert "its modules cannot be loaded" in load_error(folder)


def test_an_encoder_of_single_texts_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    """Its modules make embeddings; sentence-transformers would add a random head."""
    folder = modular(tmp_path, folders["bert"], [Pooling(WIDTH, "cls")])
    change(folder / "config_sentence_transformers.json", model_type="SentenceTransformer")

    assert "its weights lack classifier.bias, classifier.weight" in load_error(folder)


@pytest.mark.parametrize(
    ("activation", "name"),
    [(torch.nn.Sigmoid(), "sigmoid"), (torch.nn.Identity(), "identity"), (torch.nn.Tanh(), "tanh")],
)
def test_the_activation_is_that_of_sentence_transformers(
    folders: dict[str, Path], tmp_path: Path, activation: torch.nn.Module, name: str
) -> None:
    modules = tmp_path / "modules"
    build_modular(modules, folders["bert"], HEADS["ettin"](), activation)
    one = tmp_path / "one"
    model = CrossEncoder(str(folders["bert"]), device="cpu", activation_fn=activation)
    model.save_pretrained(str(one))

    assert saved_activation(modules) == saved_activation(one) == name
    assert type(CrossEncoder(str(one), device="cpu").activation_fn) is type(activation)
    assert load(one).activation == name


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({}, "sigmoid"),
        (
            {"sentence_transformers": {"activation_fn": IDENTITY}},
            "identity",
        ),
        ({"sbert_ce_default_activation_function": IDENTITY}, "identity"),
        ({"sentence_transformers": {"activation_fn": "acme.Steps"}}, "sigmoid"),
    ],
)
def test_an_older_model_names_its_activation_in_its_config(
    tmp_path: Path, config: dict[str, Any], name: str
) -> None:
    folder = build(tmp_path / "old")
    change(folder / "config.json", **config)

    assert saved_activation(folder) == name
    reference = CrossEncoder(str(folder), device="cpu").activation_fn
    assert type(reference).__name__.lower() == name
