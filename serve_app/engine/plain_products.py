"""Keep OpenVINO from fusing GELU into the preceding matrix product; see `docs/decisions/0007`.

OpenVINO does not fuse a formula that it does not recognize as GELU:

    gelu(x) = x (1 + erf(x / √2)) / 2 = √½ · y (1 + erf(y))    where y = √½ · x

The weights before the GELU take one factor √½, the weights after it take the other.
"""

import math

import torch
from transformers.activations import GELUActivation

from serve_app.engine.cls_only import ClsOnlyEncoder

FACTOR = math.sqrt(0.5)


def keep_apart(encoder: ClsOnlyEncoder) -> None:
    """Change the weights and the activation of every layer with GELU."""
    for layer in encoder.layers:
        if isinstance(layer.intermediate.intermediate_act_fn, GELUActivation):
            with torch.no_grad():
                for parameter in (
                    *layer.intermediate.dense.parameters(),
                    layer.output.dense.weight,
                ):
                    parameter.mul_(FACTOR)
            layer.intermediate.intermediate_act_fn = _HalfGelu()


class _HalfGelu(torch.nn.Module):
    """Computes √2 gelu(√2 y) for y."""

    def forward(self, scaled: torch.Tensor) -> torch.Tensor:
        return scaled * (1.0 + torch.erf(scaled))
