"""A model that reads query and document together and answers one logit.

Any `*ForSequenceClassification` of transformers with exactly one label.
"""

from collections.abc import Sequence
from typing import Any

import torch

from serve_app.engine.forward import Inputs
from serve_app.engine.pair_engine import PairEngine
from serve_app.engine.unpacking import Encoded


class CrossEncoder(PairEngine):
    """Each pair is one sequence; `PaddedForward` computes `logits_of`."""

    def _logits(self, pairs: Sequence[Encoded]) -> torch.Tensor:
        return self._forward(pairs).squeeze(1)


def logits_of(model: Any, inputs: Inputs) -> torch.Tensor:
    """(B, 1) float32."""
    logits: torch.Tensor = model(**inputs).logits
    return logits.float()


def describe(model: Any) -> str:
    """The architecture and its size, for a person."""
    weights = sum(parameter.numel() for parameter in model.parameters())
    return f"cross-encoder {type(model).__name__}, {weights / 1e6:.1f} M weights"
