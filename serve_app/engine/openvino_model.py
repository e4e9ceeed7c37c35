"""Models that OpenVINO computes, which is faster than torch on CPUs; see `docs/decisions/0007`.

A model is two graphs: its encoder, and its head, which is always computed in float32.
`serve_app.engine.openvino_export` writes its folder:

    encoder.xml, encoder.bin   the graph of the encoder, and its weights
    head.xml, head.bin         the graph of the rest of the model
    model.json                 the fields of `ModelFacts`, and the logits of `probes` as torch
                               computes them in float32

This module imports neither torch nor transformers.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serve_app.engine.facts import ModelFacts
from serve_app.engine.forward import Arrays, Logits

# OpenVINO reports imports and conversions to its vendor, but not without its telemetry package.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # marks it as missing

import openvino  # noqa: E402 - must follow the lines above

CORE = openvino.Core()
"""Keeps OpenVINO's plugin for CPUs loaded: an inference request that outlives it crashes."""

ENCODER, HEAD, FACTS = "encoder.xml", "head.xml", "model.json"

STATES = "states"
"""Name of the head's input that is the encoder's output, (B, R, H)."""

FORMATS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
"""Names in OpenVINO's settings."""

CAPABILITIES = {"float32": "FP32", "bfloat16": "BF16", "float16": "FP16"}
"""Names in OpenVINO's list of a CPU's capabilities."""

TOLERANCES = {"float32": 1e-3, "bfloat16": 0.25, "float16": 0.05}
"""Largest difference of a logit from torch's in float32, times the largest logit if that is above
1. A wrong graph differs by more."""

LENGTH_STEP = 16
"""Passes are padded to a multiple of this number of tokens; see `docs/decisions/0019`."""

PROBES = ((1, 16), (3, 200))
"""Shapes of the passes that must have torch's logits: tracing may fix choices that a model's code
makes by length."""


def computes(precision: str) -> bool:
    """Return whether OpenVINO computes in ``precision`` on this CPU, not silently in float32."""
    available = CORE.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return CAPABILITIES[precision] in available


def compile_graph(graph: Path | openvino.Model, precision: str, threads: int) -> Any:
    """Return an inference request for any batch size and length.

    ``precision`` is the format of matrix products: float32 where `computes` is false.
    """
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": FORMATS[precision],
        "INFERENCE_NUM_THREADS": threads,
        # Pinned threads of two replicas on one machine would share the same cores.
        "ENABLE_CPU_PINNING": False,
    }
    return CORE.compile_model(graph, "CPU", settings).create_infer_request()


def infer(request: Any, inputs: Mapping[str, Any]) -> Any:
    """Return the only output, which the next inference overwrites. Raises: RuntimeError."""
    # The method `infer` may hide errors; see `docs/decisions/0018`.
    request.start_async(inputs)
    request.wait()
    return request.get_output_tensor().data


class OpenVinoModel:
    """A compiled model. It runs one inference at a time."""

    def __init__(self, folder: Path, precision: str, threads: int) -> None:
        """Raises: ValueError if the model's logits differ from torch's."""
        fields = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        self.facts = ModelFacts.from_json(fields["facts"])
        self._encoder = compile_graph(folder / ENCODER, precision, threads)
        self._head = compile_graph(folder / HEAD, "float32", threads)
        self._head_inputs = [each.any_name for each in self._head.model_inputs]
        computed = np.concatenate([self(probe) for probe in probes(self.facts)])
        _check_equal(computed[:, 0], np.array(fields["logits"]), TOLERANCES[precision])

    def __call__(self, inputs: Arrays) -> Logits:
        """Return the logits, (B, 1). Raises: RuntimeError."""
        known = {**inputs, STATES: infer(self._encoder, inputs)}
        logits = infer(self._head, {name: known[name] for name in self._head_inputs})
        # Copied, because the next inference overwrites this buffer.
        return np.array(logits, dtype=np.float32)


def probes(facts: ModelFacts) -> list[Arrays]:
    """Return inputs in which later rows have more padding."""
    return [_probe(facts, rows, min(tokens, facts.pair_tokens_max)) for rows, tokens in PROBES]


def _probe(facts: ModelFacts, rows: int, tokens: int) -> Arrays:
    numbers = np.arange(1, rows * tokens + 1, dtype=np.int64).reshape(rows, tokens)
    ids = numbers * 48_271 % 2_147_483_647 % facts.vocabulary
    lengths = tokens - np.arange(rows) * (tokens // (rows + 1))
    mask = (np.arange(tokens) < lengths[:, None]).astype(np.int64)
    types = mask * (np.arange(tokens) >= tokens // 4)
    ids = np.where(mask, ids, facts.pad_id)
    return dict(zip(facts.inputs, (ids, mask, types), strict=False))


def _check_equal(computed: Logits, expected: NDArray[np.float64], tolerance: float) -> None:
    """Raises: ValueError. NaN equals NaN: a model may have weights that are no numbers."""
    largest = np.max(np.abs(expected), initial=1.0, where=np.isfinite(expected))
    wrong = ~np.isclose(computed, expected, rtol=0.0, atol=tolerance * largest, equal_nan=True)
    if wrong.any():
        raise ValueError(f"a logit differs by {np.abs(computed - expected)[wrong].max():.3g}")
