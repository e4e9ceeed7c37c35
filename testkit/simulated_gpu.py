"""Scorers with a simulated GPU, for benchmarks and the lab.

Deploy them with ``import_path: testkit.simulated_gpu:scorer``. Only the GPU's work is simulated. A
pass keeps the CPU busy for the time that launching its kernels would take, and ends when the GPU
would have processed its tokens. Passes run one after the other. The engine's work on the CPU
(checking ids, planning passes, padding) is real. All logits are zero.
"""

import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ray import serve
from ray.serve import Application

from serve_app import app
from serve_app.deployments import scorer as deployed
from serve_app.domain.model import Portion
from serve_app.engine.cpu import suitable_passes
from serve_app.engine.cross_encoder import CrossEncoder, Identity
from serve_app.engine.forward import Arrays, Logits, PaddedForward
from serve_app.engine.limits import EngineLimits
from serve_app.engine.loading import load_tokenizer
from serve_app.engine.saved_modules import IDENTITY
from serve_app.engine.unpacking import InputLimits
from testkit.simulation import BATCHES_AT_ONCE, TOKENS_PER_S

LAUNCH_S = 0.000_8
"""Estimated CPU time for launching a pass: about 150 kernels of a 12-layer model at 5 us."""

VOCABULARY = 30_522


class SimulatedGpu:
    """A simulated GPU with a fixed number of tokens per second, one pass after the other.

    `PaddedForward` lets only one thread launch at a time.
    """

    def __init__(self, tokens_per_s: float) -> None:
        self._tokens_per_s = tokens_per_s
        self._free_at = 0.0
        self._own = threading.local()

    def compute(self, inputs: Arrays) -> Logits:
        """Launch a pass without waiting for it."""
        launched_at = time.perf_counter() + LAUNCH_S
        while time.perf_counter() < launched_at:
            pass
        run_s = int(inputs["attention_mask"].sum()) / self._tokens_per_s
        self._free_at = self._own.done_at = max(self._free_at, time.perf_counter()) + run_s
        return np.zeros((len(inputs["input_ids"]), 1), dtype=np.float32)

    def wait(self) -> None:
        """Wait until the last pass that this thread launched is done."""
        time.sleep(max(0.0, self._own.done_at - time.perf_counter()))


class SimulatedCrossEncoder(CrossEncoder):
    """A cross-encoder that scores on a `SimulatedGpu`."""

    gpu: SimulatedGpu

    def score(self, portions: Sequence[Portion]) -> list[list[float]]:
        logits = super().score(portions)
        self.gpu.wait()
        return logits


def load_engine(
    source: str, revision: str | None, precision: str, limits: EngineLimits, cache: Path
) -> SimulatedCrossEncoder:
    """Replace `serve_app.engine.loading.load_engine`."""
    tokenizer = load_tokenizer(source, revision, limits.pair_tokens_max, cache)
    gpu = SimulatedGpu(float(os.environ[TOKENS_PER_S]))  # noqa: TID251 - for a child process
    passes = suitable_passes("cuda", limits.batch_tokens_max)
    forward = PaddedForward(
        compute=gpu.compute,
        pad_id=0,
        document_type=tokenizer.template.document_type,
        forward_tokens_max=passes.tokens_max,
        pass_cost_tokens=passes.cost_tokens,
        length_step=1,
        length_max=tokenizer.pair_tokens_max,
    )
    engine = SimulatedCrossEncoder(
        Identity("simulated", precision, "a simulated GPU", IDENTITY),
        forward,
        tokenizer.template,
        InputLimits(VOCABULARY, tokenizer.pair_tokens_max, limits.batch_tokens_max),
    )
    engine.gpu = gpu
    engine.batches_at_once = int(os.environ.get(BATCHES_AT_ONCE, "2"))  # noqa: TID251 - as above
    return engine


class SimulatedScorer(deployed.Scorer.func_or_class):  # type: ignore[misc, name-defined]  # the wrapped class is Any to mypy
    """`Scorer` with a simulated GPU."""

    def __init__(self, *args: Any) -> None:
        deployed.load_engine = load_engine  # type: ignore[attr-defined, assignment]  # imported there
        super().__init__(*args)


def scorer(args: dict[str, Any]) -> Application:
    """Build the application as `serve_app.app.scorer`, but with the simulated GPU."""
    app.Scorer = serve.deployment(SimulatedScorer)  # type: ignore[attr-defined]  # imported there
    return app.scorer(args)
