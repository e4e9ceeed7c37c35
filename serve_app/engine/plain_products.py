"""Keeps OpenVINO from joining gelu to the matrix product before it, which is slower in float32.

By itself a product is computed by MLAS, with a gelu behind it by oneDNN: on two cores with AVX2
12 products of (512, 384) and (384, 1536) take 43 and 57 ms, a gelu of its own 8 ms; passes are 4 to
6 % shorter at all lengths. What OpenVINO does not know as a gelu it does not join:

    gelu(x) = x (1 + erf(x / √2)) / 2 = √½ · y (1 + erf(y))    where y = √½ · x

The weights before take one √½, those behind the other.
"""

import math

import torch
from transformers.activations import GELUActivation

from serve_app.engine.cls_only import ClsOnlyEncoder

FACTOR = math.sqrt(0.5)


def keep_apart(encoder: ClsOnlyEncoder) -> None:
    """Do so in every layer of ``encoder`` that has a gelu, whose weights it changes."""
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
    """√2 gelu(√2 y) for y."""

    def forward(self, scaled: torch.Tensor) -> torch.Tensor:
        return scaled * (1.0 + torch.erf(scaled))
