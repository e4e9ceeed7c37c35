"""Encoder compiled by OpenVINO, which is faster than torch on CPUs; see `docs/decisions/0007`.

torch prepares the inputs and computes the head, in float32.
"""

import sys
import warnings
from typing import Any

import numpy as np
import torch

# OpenVINO reports imports and conversions to a server of its vendor, unless a file in the home
# directory forbids it. Without its telemetry package it reports nothing.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # marks it as missing

import openvino  # noqa: E402 - must follow the lines above

FORMATS = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}
"""Names of number formats in OpenVINO's settings."""

CAPABILITIES = {torch.float32: "FP32", torch.bfloat16: "BF16", torch.float16: "FP16"}
"""Names of number formats in OpenVINO's list of a CPU's capabilities."""


def computes(precision: torch.dtype) -> bool:
    """Whether this CPU has instructions for ``precision`` that OpenVINO uses.

    Without them OpenVINO would silently compute in float32.
    """
    available = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return CAPABILITIES[precision] in available


def compile_for_cpu(
    module: torch.nn.Module, names: tuple[str, ...], precision: torch.dtype
) -> openvino.CompiledModel:
    """Compile ``module`` for any batch size and length; this takes some seconds.

    Args:
        names: The module's inputs in order, each (B, L) int64.
        precision: Format of matrix products; float32 where `computes` is false.
    """
    example = tuple(torch.ones((2, 3), dtype=torch.int64) for _ in names)
    with torch.no_grad(), warnings.catch_warnings():
        # torch.export, the successor of tracing, takes 15 s for twelve layers instead of 4 s.
        warnings.filterwarnings("ignore", r"`torch\.jit\.trace", DeprecationWarning)
        # Embeddings compare their padding id with their size: the same result for all inputs.
        warnings.filterwarnings("ignore", "Converting a tensor", torch.jit.TracerWarning)
        graph = openvino.convert_model(module, example_input=example)
    for name, graph_input in zip(names, graph.inputs, strict=True):
        graph_input.get_tensor().set_names({name})
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": FORMATS[precision],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        # Pinned threads of two replicas on one machine would share the same cores.
        "ENABLE_CPU_PINNING": False,
    }
    return openvino.compile_model(graph, "CPU", settings)


class OpenVinoEncoder:
    """One compiled encoder for any batch size and length. It runs one inference at a time."""

    def __init__(self, encoder: Any, names: tuple[str, ...], precision: torch.dtype) -> None:
        """Compile ``encoder``, which must have float32 weights; see `compile_for_cpu`."""
        self._request = compile_for_cpu(encoder, names, precision).create_infer_request()

    def __call__(self, **inputs: torch.Tensor) -> torch.Tensor:
        """Return the encoder's states in float32, (B, R, H), for the named inputs.

        Raises: RuntimeError.
        """
        arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
        (states,) = self._request.infer(arrays).values()
        # Copy the states: the next inference overwrites this buffer.
        return torch.from_numpy(np.array(states, dtype=np.float32))
