"""Build the engine of a model that torch computes."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from serve_app.domain.model import EMBEDDED
from serve_app.engine.cls_only import ClsOnlyEncoder, head_logits, is_supported
from serve_app.engine.cross_encoder import Identity, cross_encoder
from serve_app.engine.device import pick_device, pick_precision, use_cpu_threads
from serve_app.engine.embedded import model as embedded
from serve_app.engine.facts import ModelFacts
from serve_app.engine.limits import EngineLimits
from serve_app.engine.mixed_precision import shorten
from serve_app.engine.models import describe, load_cross_encoder, logits_of
from serve_app.engine.saved_modules import IDENTITY, saved_activation
from serve_app.engine.tokenizer import PairTokenizer, TokenizerFiles
from serve_app.engine.torch_forward import Inputs, TorchPasses
from serve_app.ports import Engine


def assemble(source: str, folder: Path, precision: str, limits: EngineLimits) -> Engine:
    """Raises: ModelLoadError."""
    device = pick_device()
    number_format = pick_precision(precision, device)
    if device.type == "cpu":
        use_cpu_threads(limits.threads)
    model, facts = read_model(source, folder, limits.pair_tokens_max)
    passes = TorchPasses(through_torch(model, number_format, device), device)
    name = str(model.base_model.dtype).removeprefix("torch.")
    identity = Identity(str(device), name, facts.description, facts.activation)
    return cross_encoder(facts, identity, limits, passes.compute, passes.collect)


def read_model(source: str, folder: Path, pair_tokens_max: int | None) -> tuple[Any, ModelFacts]:
    """Return the model in float32 on the CPU, and its facts.

    Raises: ModelLoadError.
    """
    logging.disable_progress_bar()  # A replica's log is not a terminal.
    files = TokenizerFiles.read(folder, source)
    tokenizer = PairTokenizer(files, pair_tokens_max)
    if source == EMBEDDED:
        model = embedded.load(folder, embedded.ADAPTER)
        activation = IDENTITY
    else:
        model = load_cross_encoder(source, folder)
        activation = saved_activation(folder)
    model.eval()
    return model, ModelFacts(
        description=describe(model) + (", for English texts" if source == EMBEDDED else ""),
        activation=activation,
        vocabulary=model.get_input_embeddings().num_embeddings,
        pad_id=model.config.pad_token_id or 0,
        pair_tokens_max=tokenizer.pair_tokens_max,
        takes_types=files.token_types,
        template=tokenizer.template,
    )


def through_torch(
    model: Any, precision: torch.dtype, device: torch.device
) -> Callable[[Inputs], torch.Tensor]:
    """Move ``model`` to ``device`` and return the function that computes its logits there."""
    shorten(model, precision)
    model.to(device)
    if not is_supported(model):
        return partial(logits_of, model)
    return partial(head_logits, model, ClsOnlyEncoder(model.base_model))
