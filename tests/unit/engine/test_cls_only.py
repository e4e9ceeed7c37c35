"""Computing only the first token, with torch or OpenVINO, gives transformers' own logits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from serve_app.engine.cls_only import ClsOnlyEncoder, head_logits, is_supported
from serve_app.engine.openvino_export import convert, token_examples
from serve_app.engine.openvino_model import compile_graph, infer
from serve_app.engine.plain_products import keep_apart

pytestmark = pytest.mark.slow  # Compiles and compares models.

SUPPORTED = ("bert", "roberta", "xlm_roberta")
NAMES = ("input_ids", "attention_mask")
SHAPES = [(2, 3), (5, 17), (1, 40), (3, 512)]


def by_torch(encoder: Any) -> Any:
    return encoder


def by_openvino(encoder: Any) -> Any:
    request = compile_graph(convert(encoder, NAMES, token_examples(NAMES)), "float32", threads=1)

    def states(**inputs: torch.Tensor) -> torch.Tensor:
        return torch.tensor(infer(request, {name: each.numpy() for name, each in inputs.items()}))

    return states


def by_openvino_with_plain_products(encoder: Any) -> Any:
    keep_apart(encoder)
    return by_openvino(encoder)


def inputs(pairs: int, tokens: int, pad_id: int) -> dict[str, torch.Tensor]:
    """Return sequences, each one token shorter than the previous one."""
    torch.manual_seed(tokens)
    ids = torch.randint(5, 60, (pairs, tokens))
    mask = torch.ones_like(ids)
    for row in range(1, pairs):
        ids[row, -row:], mask[row, -row:] = pad_id, 0
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("family", SUPPORTED)
@pytest.mark.parametrize("compiled", [by_torch, by_openvino, by_openvino_with_plain_products])
def test_logits_are_those_of_transformers_for_any_shape(
    folders: dict[str, Path], family: str, compiled: Callable[[Any], Any]
) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(folders[family]).eval()
    batches = [inputs(pairs, tokens, model.config.pad_token_id) for pairs, tokens in SHAPES]
    with torch.inference_mode():
        expected = [model(**batch).logits for batch in batches]
        assert is_supported(model)
        encoder = compiled(ClsOnlyEncoder(model.base_model))

        for batch, logits in zip(batches, expected, strict=True):
            torch.testing.assert_close(
                head_logits(model, encoder, batch), logits, atol=1e-5, rtol=1e-4
            )


def test_distilbert_is_not_computed_this_way(folders: dict[str, Path]) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(folders["distilbert"])

    assert not is_supported(model)


@pytest.mark.parametrize("activation", ["relu", "gelu_new"])
def test_other_activations_are_unchanged(folders: dict[str, Path], activation: str) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(
        folders["bert"], hidden_act=activation
    ).eval()
    batch = inputs(3, 9, model.config.pad_token_id)
    with torch.inference_mode():
        expected = model(**batch).logits
        encoder = ClsOnlyEncoder(model.base_model)

        keep_apart(encoder)

        torch.testing.assert_close(head_logits(model, encoder, batch), expected)
