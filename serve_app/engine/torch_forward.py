"""Compute passes with torch, and copy inputs and logits between devices."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch

from serve_app.engine.forward import Arrays, Logits

Inputs = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class TorchPasses:
    """Both functions of a `serve_app.engine.forward.PaddedForward`."""

    model: Callable[[Inputs], torch.Tensor]
    """Maps inputs on ``device`` to (B, 1) float32 there."""

    device: torch.device

    def compute(self, arrays: Arrays) -> torch.Tensor:
        with torch.inference_mode():
            return self.model(
                {
                    name: to_device(torch.from_numpy(each), self.device)
                    for name, each in arrays.items()
                }
            )

    def collect(self, launched: list[torch.Tensor]) -> Callable[[], Logits]:
        with torch.inference_mode():
            computed = from_device(torch.cat(launched))
        return lambda: cast(Logits, computed().numpy())


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return ``tensor`` on ``device``.

    On CUDA the copy from pinned memory does not block, so that the next pass is prepared meanwhile.
    """
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def from_device(tensor: torch.Tensor) -> Callable[[], torch.Tensor]:
    """Return a function that waits for ``tensor`` and returns it on the CPU.

    It does not wait for work that others launch later, as `torch.Tensor.cpu` would.
    """
    if tensor.device.type != "cuda":
        there: Callable[[], torch.Tensor] = tensor.cpu
        return there
    copy = tensor.to("cpu", non_blocking=True)  # torch copies to pinned memory.
    copied = torch.cuda.Event(blocking=True)
    copied.record()

    def wait() -> torch.Tensor:
        copied.synchronize()
        return copy

    return wait
