"""Run a model over sequences in padded passes.

Shapes for a pass of B sequences padded to L tokens:
    input_ids       (B, L) int64   padded at the end with the model's padding id
    attention_mask  (B, L) int64   1 for tokens, 0 for padding
    token_type_ids  (B, L) int64   only for models that have types: 0 query, 1 document
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Lock

import numpy as np
import torch

from serve_app.domain.errors import EngineFailure
from serve_app.engine.packing import plan, unplan
from serve_app.engine.unpacking import Encoded, lengths

Inputs = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class PaddedForward:
    """Runs the passes of one model."""

    compute: Callable[[Inputs], torch.Tensor]
    """Maps inputs to (B, D) float32, row by row: no row may depend on another."""

    device: torch.device
    pad_id: int
    document_type: int
    """Token type of the document's segment; 0 means that the model takes no types."""

    forward_tokens_max: int
    """Most tokens of a pass, padding included; a longer sequence runs alone."""

    pass_cost_tokens: int
    """Fixed cost of a pass, as the number of tokens that could be computed in its place."""

    launching: Lock = field(default_factory=Lock)
    """Held by a caller until all its passes are launched, so that callers are computed one after
    the other, and memory that one has freed is available to the next."""

    def __call__(self, sequences: Sequence[Encoded]) -> torch.Tensor:
        """Return (N, D) float32 on the CPU for N >= 1 sequences, in their order.

        Raises: EngineFailure when the model fails, out of memory included.
        """
        passes = plan(lengths(sequences), self.forward_tokens_max, self.pass_cost_tokens)
        try:
            with self.launching, torch.inference_mode():
                # Copy to the CPU once, at the end, because each copy would wait for the device.
                launched = [
                    self.compute(self._inputs([sequences[member] for member in each.members]))
                    for each in passes
                ]
                computed = from_device(torch.cat(launched))
            rows = computed()
        except Exception as error:  # a model's code may raise anything
            raise EngineFailure(f"{type(error).__name__}: {error}") from error
        return rows[unplan(passes)]

    def _inputs(self, sequences: Sequence[Encoded]) -> Inputs:
        shape = len(sequences), max(lengths(sequences))
        input_ids = np.full(shape, self.pad_id, dtype=np.int64)
        attention_mask = np.zeros(shape, dtype=np.int64)
        types = np.zeros(shape, dtype=np.int64)
        for row, sequence in enumerate(sequences):
            tokens = len(sequence.ids)
            input_ids[row, :tokens] = sequence.ids
            attention_mask[row, :tokens] = 1
            types[row, sequence.query_tokens : tokens] = self.document_type
        arrays = {"input_ids": input_ids, "attention_mask": attention_mask}
        if self.document_type:
            arrays["token_type_ids"] = types
        return {
            name: to_device(torch.from_numpy(each), self.device) for name, each in arrays.items()
        }


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return ``tensor`` on ``device``.

    On CUDA the copy comes from pinned memory and is queued between the passes, so that the next
    pass is prepared while the GPU computes the current one.
    """
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def from_device(tensor: torch.Tensor) -> Callable[[], torch.Tensor]:
    """Return a function that waits until ``tensor`` is computed and returns it on the CPU.

    It does not wait for work that others launch after this call, as `torch.Tensor.cpu` would.
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
