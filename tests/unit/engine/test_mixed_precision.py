"""Which parts of a model stay in float32."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from serve_app.engine.mixed_precision import shorten
from testkit.tiny_models import FAMILIES


@pytest.mark.parametrize("family", FAMILIES)
def test_the_encoder_has_reduced_precision_and_the_head_has_not(
    folders: dict[str, Path], family: str
) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(folders[family])

    shorten(model, torch.bfloat16)

    formats: dict[str, set[torch.dtype]] = {"base": set(), "head": set()}
    base = f"{model.base_model_prefix}."
    for name, weight in model.named_parameters():
        in_base = name.startswith(base) and not name.startswith(f"{base}pooler.")
        formats["base" if in_base else "head"].add(weight.dtype)
    assert formats == {"base": {torch.bfloat16}, "head": {torch.float32}}
    assert model(input_ids=torch.tensor([[2, 3, 4]])).logits.dtype is torch.float32


def test_float32_changes_nothing(folders: dict[str, Path]) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(folders["bert"])

    shorten(model, torch.float32)

    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert not model.classifier._forward_pre_hooks


def test_a_model_without_a_base_stays_in_float32() -> None:
    class Bare(torch.nn.Linear):  # type: ignore[misc]  # torch is Any to mypy
        @property
        def base_model(self) -> torch.nn.Module:
            return self

    model = Bare(2, 1)

    shorten(model, torch.bfloat16)

    assert model.weight.dtype is torch.float32
