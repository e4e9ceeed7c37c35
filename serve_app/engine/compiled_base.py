"""Replace the encoder of any model by one that OpenVINO compiles, if that computes the same.

The model's head stays in torch, in float32. On two cores, OpenVINO needs half to a quarter of
torch's time for ModernBERT, DeBERTa-v2, Electra and DistilBERT.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils import logging

from serve_app.engine.cross_encoder import logits_of
from serve_app.engine.forward import Inputs
from serve_app.engine.openvino_encoder import OpenVinoEncoder
from serve_app.telemetry.logs import get_logger

logger = get_logger(__name__)

SHAPES = ((1, 16), (3, 200))
"""Shapes of the passes that must have the same logits. A graph may be right for some lengths only,
because tracing fixes the choices that a model's code makes for one length, such as whether
ModernBERT's windows of 128 tokens hold all of them."""

TOLERANCES = {torch.float32: 1e-3, torch.bfloat16: 0.25, torch.float16: 0.05}
"""Largest difference of a logit from torch's in float32, times the largest logit if that is above
1. A wrong graph differs by more."""

ATTENTION = "sdpa_without_empty_rows"
"""torch's fused attention in which a token that may attend to none attends to all.

Tokens of padding that are far from the text have no other token in ModernBERT's windows. OpenVINO
computes NaN for them, which would spread to the text.
"""


def compile_base(
    source: str, model: Any, names: tuple[str, ...], precision: torch.dtype, tokens_max: int
) -> bool:
    """Let OpenVINO compute the encoder of ``model``, whose inputs are ``names``, if it can.

    Args:
        tokens_max: Tokens of the longest pair.

    Returns: Whether it can. If not, the model is unchanged, and the log gives the reason.
    """
    probes = [_probe(model, names, rows, min(tokens, tokens_max)) for rows, tokens in SHAPES]
    base = model.base_model
    try:
        with torch.inference_mode():
            expected = [logits_of(model, probe) for probe in probes]
            # The rest of the model, its head, calls this in the place of the encoder.
            setattr(model, model.base_model_prefix, _CompiledBase(base, names, precision))
            computed = [logits_of(model, probe) for probe in probes]
        _check_equal(torch.cat(computed), torch.cat(expected), TOLERANCES[precision])
    except Exception as error:  # noqa: BLE001 - a model's code and OpenVINO may raise anything
        setattr(model, model.base_model_prefix, base)
        logger.warning(
            "openvino_not_used",
            extra={"model": source, "reason": f"{type(error).__name__}: {str(error)[:300]}"},
        )
        return False
    return True


class _CompiledBase(torch.nn.Module):
    def __init__(self, base: Any, names: tuple[str, ...], precision: torch.dtype) -> None:
        super().__init__()
        self._names = names
        with _quiet(), _attention(base):
            self._encoder = OpenVinoEncoder(_States(base, names), names, precision)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
        **_options: Any,
    ) -> BaseModelOutput:
        given = (input_ids, attention_mask, token_type_ids)
        inputs = dict(zip(self._names, given, strict=False))
        return BaseModelOutput(last_hidden_state=self._encoder(**inputs))


class _States(torch.nn.Module):
    """An encoder with inputs by position and one output, for tracing."""

    def __init__(self, base: Any, names: tuple[str, ...]) -> None:
        super().__init__()
        self._base = base
        self._names = names

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        states: torch.Tensor = self._base(
            **dict(zip(self._names, inputs, strict=True))
        ).last_hidden_state
        return states


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


def _check_equal(computed: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    difference = (computed - expected).abs().max().item()
    if not difference <= tolerance * max(1.0, expected.abs().max().item()):  # NaN is refused, too.
        raise ValueError(f"a logit differs by {difference:.3g}")


def _probe(model: Any, names: tuple[str, ...], rows: int, tokens: int) -> Inputs:
    """Return a pass of random tokens, in which each row has more padding than the one before."""
    random = torch.Generator().manual_seed(0)
    vocabulary = model.get_input_embeddings().num_embeddings
    ids = torch.randint(0, vocabulary, (rows, tokens), generator=random)
    lengths = tokens - torch.arange(rows) * (tokens // (rows + 1))
    mask = (torch.arange(tokens) < lengths[:, None]).long()
    ids[mask == 0] = model.config.pad_token_id or 0
    types = mask * (torch.arange(tokens) >= tokens // 4)
    return dict(zip(names, (ids, mask, types), strict=False))
