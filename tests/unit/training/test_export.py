"""The shipped adapter holds the trained layers, and the other layers as they were."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from serve_app.engine.embedded.adapter import read
from serve_app.engine.embedded.model import ADAPTER, load
from testkit.reference import reference_logits
from tests.support.varied_pairs import varied_pairs
from training import export
from training.data import ENCODER, tokenizer
from training.train import TRAINED

Run = Callable[..., None]

LOGITS_TOLERANCE = 0.05


def test_weights_of_several_models_are_averaged() -> None:
    models = [torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)]
    for model, value in zip(models, (1.0, 4.0), strict=True):
        torch.nn.init.constant_(model.weight, value)
        torch.nn.init.constant_(model.bias, -value)

    averaged = export.mean_of(models)

    assert (averaged.weight.item(), averaged.bias.item()) == (2.5, -2.5)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_exported_file_scores_as_the_trained_model(
    tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    model = load(ENCODER, ADAPTER).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith(TRAINED):
                parameter.add_(0.001 * torch.randn(parameter.shape))
    model.save_pretrained(tmp_path / "model")
    tokenizer().save_pretrained(tmp_path / "model")
    file = tmp_path / "adapter.safetensors"

    run(export.main, "--model", tmp_path / "model", "--out", file)
    loaded = load(ENCODER, file)
    loaded.save_pretrained(tmp_path / "loaded")
    tokenizer().save_pretrained(tmp_path / "loaded")

    before, after = read(ADAPTER).tensors, read(file).tensors
    kept = [name for name in after if not name.startswith(TRAINED)]
    assert all(after[name].equal(before[name]) for name in kept)
    assert {name for name in before if not name.startswith(TRAINED)} == set(kept)
    pairs = varied_pairs(80, long_texts=0)
    expected = reference_logits(tmp_path / "model", pairs)
    found = reference_logits(tmp_path / "loaded", pairs)
    assert found == pytest.approx(expected, abs=LOGITS_TOLERANCE)
    assert max(expected) - min(expected) > 1
    assert "from the model's" in capsys.readouterr().out
