"""Error messages for models that cannot be loaded."""

import json
from pathlib import Path

import pytest
from transformers import AutoModel

from serve_app.engine.limits import EngineLimits
from serve_app.engine.loading import load_engine
from serve_app.engine.sources import ModelLoadError
from testkit.tiny_models import build

LIMITS = EngineLimits(batch_tokens_max=1_024, forward_tokens_max=1_024, threads=1)


def load_error(folder: Path) -> str:
    with pytest.raises(ModelLoadError) as refused:
        load_engine(str(folder), None, "float32", LIMITS)
    message = str(refused.value)
    assert message.startswith(f"model {folder}: ")
    assert "\n" not in message
    return message


def test_a_model_with_two_logits_is_refused(tmp_path: Path) -> None:
    assert "num_labels is 2" in load_error(build(tmp_path / "two", labels=2))


def test_a_head_that_was_never_trained_is_refused(tmp_path: Path) -> None:
    """transformers would initialize the head at random, and scores would be noise."""
    folder = build(tmp_path / "headless")
    AutoModel.from_pretrained(folder).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {"0": "LABEL_0"}
    (folder / "config.json").write_text(json.dumps(config))

    assert "its weights lack classifier.bias, classifier.weight" in load_error(folder)


def test_missing_weights_are_reported(tmp_path: Path) -> None:
    folder = build(tmp_path / "weightless")
    (folder / "model.safetensors").unlink()

    assert "its files cannot be loaded" in load_error(folder)


def test_damaged_weights_are_reported(tmp_path: Path) -> None:
    folder = build(tmp_path / "damaged")
    (folder / "model.safetensors").write_bytes(b"\0" * 100)

    assert "its files cannot be loaded" in load_error(folder)


def test_an_unknown_architecture_is_reported(tmp_path: Path) -> None:
    folder = build(tmp_path / "unknown")
    (folder / "config.json").write_text('{"model_type": "unknown-type"}')

    load_error(folder)


def test_an_override_bounds_the_engine_too(tmp_path: Path) -> None:
    folder = build(tmp_path / "bounded")
    limits = EngineLimits(1_024, 1_024, pair_tokens_max=1_000, threads=1)

    with pytest.raises(ModelLoadError, match="pair_tokens_max is 1000"):
        load_engine(str(folder), None, "float32", limits)
