"""An encoder compiled by OpenVINO, which is faster than torch on CPUs; see `docs/decisions/0007`.

Torch stays in front of it (arrays) and behind it (the head, in float32).
"""

import sys
import warnings
from typing import Any

import numpy as np
import torch

# OpenVINO reports its imports and conversions to a server of its makers, unless a file in the home
# directory forbids it. Where the package that does so is missing, it says nothing.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # Python's way to say missing

import openvino  # noqa: E402 - only after the lines above

FORMATS = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}
"""OpenVINO's names, as it takes them."""

CAPABILITIES = {torch.float32: "FP32", torch.bfloat16: "BF16", torch.float16: "FP16"}
"""OpenVINO's names, as it lists what a CPU has instructions for."""


def computes(precision: torch.dtype) -> bool:
    """Whether this CPU has instructions for ``precision`` that OpenVINO uses.

    Where it has none, OpenVINO would silently compute in float32.
    """
    available = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return CAPABILITIES[precision] in available


def compile_for_cpu(
    module: torch.nn.Module, names: tuple[str, ...], precision: torch.dtype
) -> openvino.CompiledModel:
    """``module`` for any batch and length, in some seconds.

    Args:
        names: Its inputs, each (B, L) int64, in the order that it takes them.
        precision: What matrix products are computed in; float32 where `computes` is false.
    """
    example = tuple(torch.ones((2, 3), dtype=torch.int64) for _ in names)
    with torch.no_grad(), warnings.catch_warnings():
        # By torch.export, which is to replace tracing, twelve layers take 15 s instead of 4.
        warnings.filterwarnings("ignore", r"`torch\.jit\.trace", DeprecationWarning)
        # Embeddings compare their padding id with their size, which is the same for all inputs.
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
    """One encoder, one inference at a time, for any batch and length."""

    def __init__(self, encoder: Any, names: tuple[str, ...], precision: torch.dtype) -> None:
        """Compile ``encoder``, whose weights are float32; see `compile_for_cpu`."""
        self._request = compile_for_cpu(encoder, names, precision).create_infer_request()

    def __call__(self, **inputs: torch.Tensor) -> torch.Tensor:
        """(B, 1, H) float32 of the inputs that were named.

        Raises: RuntimeError.
        """
        arrays = {name: tensor.numpy() for name, tensor in inputs.items()}
        (states,) = self._request.infer(arrays).values()
        # The request writes its next answer where this one lies.
        return torch.from_numpy(np.array(states, dtype=np.float32))
