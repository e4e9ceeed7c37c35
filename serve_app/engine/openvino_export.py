"""Convert a model to the files that `serve_app.engine.openvino_model` reads.

Usage: python -m serve_app.engine.openvino_export '{"source": ..., "folder": ..., ...}' OUT
"""

import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils import logging

from serve_app.engine.assembly import read_model
from serve_app.engine.cls_only import ClsOnlyEncoder, is_supported
from serve_app.engine.facts import ModelFacts
from serve_app.engine.forward import Arrays
from serve_app.engine.models import logits_of
from serve_app.engine.openvino_exports import REFUSED, Export
from serve_app.engine.openvino_model import ENCODER, FACTS, HEAD, STATES, probes
from serve_app.engine.plain_products import keep_apart
from serve_app.engine.sources import ModelLoadError

ATTENTION = "sdpa_without_empty_rows"
"""torch's fused attention in which a token that may attend to none attends to all.

Tokens of padding that are far from the text have no other token in ModernBERT's windows. OpenVINO
computes NaN for them, which would spread to the text.
"""


def export(wanted: Export, out: Path) -> None:
    """Raises: ModelLoadError; any other error means that the model cannot be converted."""
    model, facts = read_model(wanted.source, Path(wanted.folder), wanted.pair_tokens_max)
    with torch.inference_mode():
        logits = [logits_of(model, _tensors(probe)) for probe in probes(facts)]
    if is_supported(model):
        _export_cls_only(model, facts, wanted.precision, out)
    else:
        _export_any(model, facts, out)
    fields = {"facts": asdict(facts), "logits": torch.cat(logits)[:, 0].tolist()}
    (out / FACTS).write_text(json.dumps(fields), encoding="utf-8")


def convert(module: torch.nn.Module, names: tuple[str, ...], example: tuple[Any, ...]) -> Any:
    import openvino  # noqa: PLC0415 - `openvino_model` must have disabled its telemetry

    with torch.no_grad(), warnings.catch_warnings():
        # torch.export takes longer; see `docs/decisions/0007`.
        warnings.filterwarnings("ignore", r"`torch\.jit\.trace", DeprecationWarning)
        # Embeddings compare their padding id with their size: the same result for all inputs.
        warnings.filterwarnings("ignore", "Converting a tensor", torch.jit.TracerWarning)
        graph = openvino.convert_model(module, example_input=example)
    for name, graph_input in zip(names, graph.inputs, strict=True):
        graph_input.get_tensor().set_names({name})
    return graph


def token_examples(names: tuple[str, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(torch.ones((2, 3), dtype=torch.int64) for _ in names)


def _export_cls_only(model: Any, facts: ModelFacts, precision: str, out: Path) -> None:
    pooler = model.base_model.pooler
    encoder = ClsOnlyEncoder(model.base_model)
    if precision == "float32":
        keep_apart(encoder)
    _save(encoder, facts.inputs, token_examples(facts.inputs), out / ENCODER)
    head = torch.nn.Sequential(*([] if pooler is None else [pooler]), model.classifier)
    _save(head, (STATES,), (torch.ones(2, 1, model.config.hidden_size),), out / HEAD)


def _export_any(model: Any, facts: ModelFacts, out: Path) -> None:
    """Export the encoder as transformers has it, and the rest of the model as the head."""
    base, names, example = model.base_model, facts.inputs, token_examples(facts.inputs)
    with _quiet():
        encoder = _Encoder(base, names)
        with _attention(base):
            _save(encoder, names, example, out / ENCODER)
        with torch.no_grad():
            states = encoder(*example)
        _save(_Head(model, names), (STATES, *names), (states, *example), out / HEAD)


def _save(
    module: torch.nn.Module, names: tuple[str, ...], example: tuple[Any, ...], file: Path
) -> None:
    import openvino  # noqa: PLC0415 - as above

    openvino.save_model(convert(module, names, example), file, compress_to_fp16=False)


class _Encoder(torch.nn.Module):
    """An encoder with inputs by position, for tracing."""

    def __init__(self, base: Any, names: tuple[str, ...]) -> None:
        super().__init__()
        self._base = base
        self._names = names

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        states: torch.Tensor = self._base(
            **dict(zip(self._names, inputs, strict=True))
        ).last_hidden_state
        return states


class _Head(torch.nn.Module):
    """A model whose encoder returns given states."""

    def __init__(self, model: Any, names: tuple[str, ...]) -> None:
        super().__init__()
        self._given = _Given()
        setattr(model, model.base_model_prefix, self._given)
        self._model = model
        self._names = names

    def forward(self, states: torch.Tensor, *inputs: torch.Tensor) -> torch.Tensor:
        self._given.states = states
        return logits_of(self._model, dict(zip(self._names, inputs, strict=True)))


class _Given(torch.nn.Module):
    states: torch.Tensor

    def forward(self, *_inputs: Any, **_options: Any) -> BaseModelOutput:
        return BaseModelOutput(last_hidden_state=self.states)


def _tensors(arrays: Arrays) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress warnings: tracing warns of every choice, and reads all attributes of a model."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)


@contextmanager
def _attention(base: Any) -> Iterator[None]:
    before = base.config._attn_implementation
    if before == "sdpa":
        base.set_attn_implementation(ATTENTION)
    try:
        yield
    finally:
        base.set_attn_implementation(before)


def _mask_without_empty_rows(*args: Any, **kwargs: Any) -> torch.Tensor | None:
    mask: torch.Tensor | None = sdpa_mask(*args, **kwargs)
    return None if mask is None else mask | ~mask.any(dim=-1, keepdim=True)


AttentionInterface.register(ATTENTION, AttentionInterface()["sdpa"])
AttentionMaskInterface.register(ATTENTION, _mask_without_empty_rows)


if __name__ == "__main__":
    try:
        export(Export(**json.loads(sys.argv[1])), Path(sys.argv[2]))
    except ModelLoadError as error:
        sys.stderr.write(f"\n{error}\n")
        sys.exit(REFUSED)
