"""The shipped adapter stores each change in the smallest form, without loss."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from serve_app.engine.embedded import adapter
from serve_app.engine.embedded.model import load
from testkit.reference import reference_logits
from tests.support.varied_pairs import varied_pairs
from training import export
from training.construct import save
from training.data import ENCODER
from training.export import EXACT, factors, matrix

Run = Callable[..., None]

STORED = 2e-3
"""Largest relative error of stored weights: of the factors, plus two roundings to float16."""

FILE_BYTES_MAX = 4_000_000
LOGITS_TOLERANCE = 0.05

NOTHING = torch.zeros(60, 80)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def thin(rank: int, size: float = 0.1) -> torch.Tensor:
    return size * torch.randn(60, rank) @ torch.randn(rank, 80)


def in_bytes() -> torch.Tensor:
    """Return a matrix of full rank that 8-bit rows represent exactly: each row's largest value is
    127 steps."""
    steps = torch.randint(-126, 127, (60, 80)).float()
    steps[:, 0] = 127
    return steps * (torch.rand(60, 1) + 0.5) / 128


def dense() -> torch.Tensor:
    return torch.randn(60, 80)


def relative(error: torch.Tensor, of: torch.Tensor) -> float:
    return float(error.norm() / of.norm())


def test_factors_reproduce_a_matrix_of_low_rank() -> None:
    change = thin(5) + 1e-6 * dense()

    found = factors(change, rank_max=15)

    assert found is not None
    assert (found[0].shape, found[1].shape) == ((5, 80), (60, 5))
    assert relative(found[1] @ found[0] - change, change) <= EXACT


@pytest.mark.parametrize("change", [dense(), thin(16), thin(15) + 0.1 * dense()])
def test_factors_refuse_a_matrix_of_higher_rank(change: torch.Tensor) -> None:
    assert factors(change, rank_max=15) is None


@pytest.mark.parametrize(
    ("constructed", "learned", "kinds"),
    [
        (NOTHING, NOTHING, set()),
        (thin(3), NOTHING, {adapter.LORA_A, adapter.LORA_B}),
        (NOTHING, thin(4), {adapter.LORA_A, adapter.LORA_B}),
        (thin(3, size=4.0), thin(4, size=1e-3), {adapter.LORA_A, adapter.LORA_B}),
        (in_bytes(), NOTHING, {adapter.ROWS, adapter.SCALE}),
        (dense(), NOTHING, {adapter.DELTA}),
        (dense(), thin(4), {adapter.DELTA, adapter.LORA_A, adapter.LORA_B}),
        (dense(), dense(), {adapter.DELTA}),
        (in_bytes(), in_bytes(), {adapter.DELTA}),
        (in_bytes(), dense(), {adapter.DELTA}),
    ],
)
def test_the_parts_of_both_changes_are_merged_to_their_sum(
    constructed: torch.Tensor, learned: torch.Tensor, kinds: set[str]
) -> None:
    held = matrix("w", constructed, learned)

    merged = adapter.merge({"w": torch.zeros(60, 80)}, held)["w"]

    assert held.keys() == {f"w{kind}" for kind in kinds}
    assert (merged - constructed - learned).norm() <= STORED * (constructed.norm() + learned.norm())


def test_thin_factors_keep_a_small_change_next_to_a_large_one() -> None:
    """Factored together, the learned change would be lost in the constructed change's rounding."""
    constructed, learned = thin(3, size=4.0), thin(4, size=1e-3)

    alone = adapter.merge({"w": NOTHING}, matrix("w", NOTHING, learned))["w"]
    held = matrix("w", constructed, learned)

    assert relative(alone - learned, learned) <= STORED
    assert held["w.lora_A"][3:].equal(matrix("w", NOTHING, learned)["w.lora_A"])


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("learned", [0.0, 0.01])
def test_the_loaded_shipped_file_scores_as_the_model(
    learned: float, start: Path, tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(start).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith(("bert.encoder.layer.6.", "bert.encoder.layer.7.", "classifier.")):
                change = torch.randn(parameter.shape)
                if parameter.ndim == 2 and len(parameter) > 1:
                    change = torch.randn(len(parameter), 4) @ torch.randn(4, parameter.shape[1]) / 8
                parameter.add_(learned * change)
    save(model, tmp_path / "model")
    file = tmp_path / "adapter.safetensors"

    run(export.main, "--model", tmp_path / "model", "--start", start, "--out", file)
    save(load(ENCODER, file), tmp_path / "loaded")

    pairs = varied_pairs(80, long_texts=0)
    expected = reference_logits(tmp_path / "model", pairs)
    assert reference_logits(tmp_path / "loaded", pairs) == pytest.approx(
        expected, abs=LOGITS_TOLERANCE
    )
    assert max(expected) - min(expected) > 1
    assert file.stat().st_size < FILE_BYTES_MAX
    assert "from the model's" in capsys.readouterr().out
