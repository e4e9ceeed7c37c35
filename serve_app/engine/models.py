"""Load any cross-encoder from its folder, through transformers, in float32."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

from serve_app.engine.modular import Head, ModularCrossEncoder
from serve_app.engine.saved_modules import SavedModule, saved_head
from serve_app.engine.sources import ModelLoadError, first_line
from serve_app.engine.torch_forward import Inputs

LOAD_ERRORS = (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError)


def load_cross_encoder(source: str, folder: Path) -> Any:
    """Load a model with torch's fused attention where transformers has it.

    Raises: ModelLoadError.
    """
    modules = saved_head(source, folder)
    if modules:
        return _modular_model(source, folder, modules)
    return _one_logit_model(source, folder)


def _one_logit_model(source: str, folder: Path) -> Any:
    try:
        labels = AutoConfig.from_pretrained(folder).num_labels  # nosec B615 # a local folder
        if labels != 1:
            raise ModelLoadError(
                f"model {source}: num_labels is {labels}; choose a cross-encoder with one label"
            )
        model, info = AutoModelForSequenceClassification.from_pretrained(  # nosec B615 # a local folder
            folder, dtype=torch.float32, output_loading_info=True
        )
    except LOAD_ERRORS as error:
        raise ModelLoadError(
            f"model {source}: its files cannot be loaded ({first_line(error)}); it needs a "
            "config.json of a sequence classification model, and safetensors weights"
        ) from error
    _check_complete(source, info["missing_keys"])
    return model


def _modular_model(source: str, folder: Path, modules: tuple[SavedModule, ...]) -> Any:
    try:
        base, info = AutoModel.from_pretrained(  # nosec B615 # a local folder
            folder, dtype=torch.float32, output_loading_info=True
        )
        head = Head(modules)
        states = torch.zeros(1, 2, base.config.hidden_size)
        shape = head(states, attention_mask=torch.ones(1, 2, dtype=torch.int64)).shape
    except LOAD_ERRORS as error:
        raise ModelLoadError(
            f"model {source}: its modules cannot be loaded ({first_line(error)}); it needs the "
            "folder as `CrossEncoder.save_pretrained` writes it, with safetensors weights"
        ) from error
    if shape != (1, 1):
        raise ModelLoadError(
            f"model {source}: its last module gives {shape[-1]} scores; choose a cross-encoder "
            "with one score"
        )
    # BERT's own pooler is not used.
    _check_complete(source, {key for key in info["missing_keys"] if not key.startswith("pooler.")})
    return ModularCrossEncoder(base, head)


def _check_complete(source: str, missing: set[str]) -> None:
    """Raises: ModelLoadError; transformers would fill weights at random and only log that."""
    if missing:
        raise ModelLoadError(
            f"model {source}: its weights lack {', '.join(sorted(missing))}; choose a model that "
            "was trained as a cross-encoder"
        )


def logits_of(model: Any, inputs: Inputs) -> torch.Tensor:
    logits: torch.Tensor = model(**inputs).logits
    return logits.float()


def describe(model: Any) -> str:
    weights = sum(parameter.numel() for parameter in model.parameters())
    architecture = getattr(model, "architecture", type(model).__name__)
    return f"cross-encoder {architecture}, {weights / 1e6:.1f} M weights"
