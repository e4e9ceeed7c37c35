"""Inputs on their way to a device; `test_cross_encoder` tests the computation."""

import time
from concurrent.futures import ThreadPoolExecutor
from threading import get_ident
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch

from serve_app.engine.forward import Arrays, Logits, PaddedForward
from serve_app.engine.torch_forward import from_device, to_device
from serve_app.engine.unpacking import Encoded


class Recorder:
    """Stands in for a CUDA tensor and records the calls, because tests have no GPU."""

    device = SimpleNamespace(type="cuda")

    def __init__(self) -> None:
        self.asked: list[str] = []

    def pin_memory(self) -> "Recorder":
        self.asked.append("pin")
        return self

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "Recorder":
        self.asked.append(f"to {device}, {'not ' if non_blocking else ''}waiting")
        return self


def test_a_gpu_reads_its_inputs_from_pinned_memory_while_it_computes() -> None:
    recorder = Recorder()

    to_device(cast(torch.Tensor, recorder), torch.device("cuda"))

    assert recorder.asked == ["pin", "to cuda, not waiting"]


def test_on_a_cpu_inputs_are_not_copied() -> None:
    tensor = torch.arange(3)

    assert to_device(tensor, torch.device("cpu")).data_ptr() == tensor.data_ptr()


def test_waiting_for_results_does_not_include_later_launches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorder = Recorder()

    class Event:
        def __init__(self, *, blocking: bool) -> None:
            assert blocking

        def record(self) -> None:
            recorder.asked.append("mark")

        def synchronize(self) -> None:
            recorder.asked.append("wait for the mark")

    monkeypatch.setattr(torch.cuda, "Event", Event)

    computed = from_device(cast(torch.Tensor, recorder))
    recorder.asked.append("another launches")

    assert computed() is recorder
    asked = ["to cpu, not waiting", "mark", "another launches", "wait for the mark"]
    assert recorder.asked == asked


def test_two_callers_run_one_after_the_other() -> None:
    launched: list[int] = []

    def compute(inputs: Arrays) -> Logits:
        launched.append(get_ident())
        time.sleep(0.005)  # Give the other thread a chance to run.
        return np.zeros((len(inputs["input_ids"]), 1), dtype=np.float32)

    forward = PaddedForward(compute, 0, 0, 8, 0, 1, 8)
    sequences = [Encoded(np.ones(8, dtype=np.int32), 1) for _ in range(5)]

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(forward, [sequences] * 2))

    assert len(launched) == 10
    assert launched == [launched[0]] * 5 + [launched[-1]] * 5
    assert launched[0] != launched[-1]


def test_passes_are_padded_to_a_multiple_of_the_step_but_not_beyond_the_longest_sequence() -> None:
    shapes: list[tuple[int, ...]] = []

    def compute(inputs: Arrays) -> Logits:
        shapes.append(inputs["input_ids"].shape)
        tokens: Logits = inputs["attention_mask"].sum(axis=1, keepdims=True).astype(np.float32)
        return tokens

    forward = PaddedForward(compute, 0, 0, 40, 0, 16, 40)
    tokens = [33, 3, 16, 17, 2]

    logits = forward([Encoded(np.ones(each, dtype=np.int32), 1) for each in tokens])

    assert shapes == [(1, 16), (2, 16), (1, 32), (1, 40)]
    assert logits[:, 0].tolist() == tokens
