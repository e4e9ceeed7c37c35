"""Build an engine from a model's folder: weights, device, number format, limits.

It is separate from `serve_app.engine.loading` because importing it imports torch.
"""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging

from serve_app.domain.model import EMBEDDED
from serve_app.engine.cls_only import ClsOnlyEncoder, head_logits, is_supported
from serve_app.engine.cross_encoder import CrossEncoder, Identity, describe, logits_of
from serve_app.engine.device import (
    pick_device,
    pick_precision,
    suitable_passes,
    use_cpu_threads,
)
from serve_app.engine.embedded import model as embedded
from serve_app.engine.forward import Inputs, PaddedForward
from serve_app.engine.limits import EngineLimits
from serve_app.engine.mixed_precision import shorten
from serve_app.engine.models import load_cross_encoder
from serve_app.engine.plain_products import keep_apart
from serve_app.engine.saved_modules import IDENTITY, saved_activation
from serve_app.engine.tokenizer import PairTokenizer, TokenizerFiles
from serve_app.engine.unpacking import InputLimits
from serve_app.ports import Engine


def assemble(source: str, folder: Path, precision: str, limits: EngineLimits) -> Engine:
    """Return the engine of the model ``source`` from its files in ``folder``.

    Raises: ModelLoadError.
    """
    logging.disable_progress_bar()  # A replica's log is not a terminal.
    device = pick_device()
    number_format = pick_precision(precision, device)
    if device.type == "cpu":
        use_cpu_threads(limits.threads)
    files = TokenizerFiles.read(folder, source)
    tokenizer = PairTokenizer(files, limits.pair_tokens_max)

    if source == EMBEDDED:
        model = embedded.load(folder, embedded.ADAPTER)
        activation = IDENTITY
    else:
        model = load_cross_encoder(source, folder)
        activation = saved_activation(folder)
    model.eval()

    description = describe(model) + (", for English texts" if source == EMBEDDED else "")
    input_limits = InputLimits(
        vocabulary=model.get_input_embeddings().num_embeddings,
        pair_tokens_max=tokenizer.pair_tokens_max,
        batch_tokens_max=limits.batch_tokens_max,
    )
    document_type = tokenizer.template.document_type if files.token_types else 0
    compute = None
    if device.type == "cpu" and _openvino_computes(number_format):
        names = ("input_ids", "attention_mask", *(("token_type_ids",) if document_type else ()))
        tokens_max = tokenizer.pair_tokens_max
        compute = _through_openvino(source, model, number_format, names, tokens_max)
    if compute:
        identity = Identity("cpu", _name(number_format), f"{description}, by OpenVINO", activation)
    else:
        compute = through_torch(model, number_format, device)
        identity = Identity(str(device), _name(model.base_model.dtype), description, activation)
    passes = suitable_passes(device, limits.batch_tokens_max)
    forward = PaddedForward(
        compute=compute,
        device=device,
        pad_id=model.config.pad_token_id or 0,
        document_type=document_type,
        forward_tokens_max=limits.forward_tokens_max or passes.tokens_max,
        pass_cost_tokens=passes.cost_tokens,
    )
    return CrossEncoder(identity, forward, tokenizer.template, input_limits)


def _openvino_computes(precision: torch.dtype) -> bool:
    """Whether OpenVINO is installed and has instructions for ``precision`` on this CPU."""
    if find_spec("openvino") is None:
        return False
    from serve_app.engine.openvino_encoder import computes  # noqa: PLC0415 - an extra

    return computes(precision)


def _through_openvino(
    source: str, model: Any, precision: torch.dtype, names: tuple[str, ...], tokens_max: int
) -> Callable[[Inputs], torch.Tensor] | None:
    """Return ``None`` if OpenVINO cannot compute this model."""
    from serve_app.engine.compiled_base import compile_base  # noqa: PLC0415 - an extra
    from serve_app.engine.openvino_encoder import OpenVinoEncoder  # noqa: PLC0415 - an extra

    if not is_supported(model):
        compiled = compile_base(source, model, names, precision, tokens_max)
        return partial(logits_of, model) if compiled else None
    cls_only = ClsOnlyEncoder(model.base_model)
    if precision is torch.float32:
        keep_apart(cls_only)
    encoder = OpenVinoEncoder(cls_only, names, precision)
    # OpenVINO has its own copy of the weights.
    model.base_model.embeddings = model.base_model.encoder = None
    return partial(head_logits, model, encoder)


def through_torch(
    model: Any, precision: torch.dtype, device: torch.device
) -> Callable[[Inputs], torch.Tensor]:
    """Move ``model`` to ``device`` and return the function that computes its logits there."""
    shorten(model, precision)
    model.to(device)
    if not is_supported(model):
        return partial(logits_of, model)
    return partial(head_logits, model, ClsOnlyEncoder(model.base_model))


def _name(precision: torch.dtype) -> str:
    return str(precision).removeprefix("torch.")
