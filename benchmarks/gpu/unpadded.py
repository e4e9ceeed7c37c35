"""Do passes without padding pay, where the GPU has a kernel for sequences of different lengths?

All tokens of a batch form one matrix, and attention gets the places where sequences end. Padded
passes are the engine's own, of the same batches.
"""

from collections.abc import Callable, Sequence, Sized
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn.functional import linear, scaled_dot_product_attention

from benchmarks.gpu.subject import TYPICAL, Subject
from benchmarks.gpu.timing import per_second
from serve_app.engine.assembly import through_torch
from serve_app.engine.cls_only import ClsOnlyEncoder, head_logits
from serve_app.engine.cpu import suitable_passes
from serve_app.engine.device import AMPERE
from serve_app.engine.forward import PaddedForward
from serve_app.engine.mixed_precision import shorten
from serve_app.engine.torch_forward import TorchPasses, from_device, to_device
from serve_app.engine.unpacking import Encoded, lengths

Attention = Callable[..., torch.Tensor]
"""Takes queries, keys and values of shape (T, heads, head size), where the sequences of queries and
of keys end, both int32 and starting with 0, and the longest of both."""


def run(subject: Subject, found: dict[str, Any]) -> None:
    attention, kernel = kernel_for(subject.device)
    found["kernel"] = kernel
    print(f"  kernel: {kernel}")
    if attention is None:
        return
    padded = _padded(subject)
    unpadded = unpadded_forward(subject, attention)
    sequences = [
        subject.sequences(batch)
        for batch in subject.batches(TYPICAL, subject.sizes.production_tokens)
    ]
    first = sequences[0]
    found["difference_max"] = float((torch.from_numpy(padded(first)) - unpadded(first)).abs().max())
    print(f"  logits differ by at most {found['difference_max']:.2e}")
    for name, forward in (("padded", padded), ("unpadded", unpadded)):
        for in_flight in (1, 2):
            rate = per_second(
                partial(_count, forward), sequences, in_flight, 2 * subject.sizes.seconds
            )
            found[f"{name}_documents_per_s_{in_flight}_in_flight"] = round(rate)
            print(f"  {name}, {in_flight} in flight: {rate:.0f} documents/s")


def kernel_for(device: torch.device) -> tuple[Attention | None, str]:
    """Return attention for sequences of different lengths and its name, or the reason for none."""
    if device.type != "cuda":
        return one_by_one, "one sequence after the other: it tests the arithmetic, not the speed"
    if torch.cuda.get_device_capability(device) < AMPERE:
        return None, "none: flash attention needs compute capability 8.0"
    try:
        from torch.nn.attention.varlen import varlen_attn  # noqa: PLC0415 - new in torch 2.10
    except ImportError:
        return None, "none: this torch has no torch.nn.attention.varlen"
    return varlen_attn, "torch.nn.attention.varlen (flash attention)"


@dataclass(frozen=True, slots=True)
class Unpadded:
    """The tokens of N sequences, one sequence after the other, on the device."""

    input_ids: torch.Tensor
    """(T,), like the next two."""

    positions: torch.Tensor
    types: torch.Tensor
    ends: torch.Tensor
    """Where the sequences end, (N + 1,) int32, starting with 0."""

    longest: int


@dataclass(frozen=True, slots=True)
class UnpaddedForward:
    """Like `PaddedForward`, with one pass for all sequences and without a limit of its tokens."""

    compute: Callable[[Unpadded], torch.Tensor]
    device: torch.device
    document_type: int

    def __call__(self, sequences: Sequence[Encoded]) -> torch.Tensor:
        """Return (N, 1) float32 on the CPU."""
        with torch.inference_mode():
            computed = from_device(self.compute(self._inputs(sequences)))
        return computed()

    def _inputs(self, sequences: Sequence[Encoded]) -> Unpadded:
        sizes = np.array(lengths(sequences))
        ends = np.concatenate(([0], np.cumsum(sizes)))
        query_ends = ends[:-1] + [sequence.query_tokens for sequence in sequences]
        places = np.arange(ends[-1])
        in_document = places >= np.repeat(query_ends, sizes)
        arrays = (
            np.concatenate([sequence.ids for sequence in sequences]).astype(np.int64),
            places - np.repeat(ends[:-1], sizes),
            in_document.astype(np.int64) * self.document_type,
            ends.astype(np.int32),
        )
        ids, positions, types, ends_there = (
            to_device(torch.from_numpy(each), self.device) for each in arrays
        )
        return Unpadded(ids, positions, types, ends_there, int(sizes.max()))


def unpadded_forward(subject: Subject, attention: Attention) -> UnpaddedForward:
    model = subject.model()
    shorten(model, torch.float16)
    model.to(subject.device)
    encoder = partial(encode, ClsOnlyEncoder(model.base_model), attention)

    def compute(inputs: Unpadded) -> torch.Tensor:
        return head_logits(model, lambda: encoder(inputs), {})

    return UnpaddedForward(compute, subject.device, subject.tokenizer.template.document_type)


def encode(encoder: ClsOnlyEncoder, attention: Attention, inputs: Unpadded) -> torch.Tensor:
    """Return the first token's last hidden state of each sequence, (N, 1, H)."""
    ends, longest = inputs.ends, inputs.longest
    states = encoder.embeddings(
        input_ids=inputs.input_ids[None],
        position_ids=inputs.positions[None],
        token_type_ids=inputs.types[None],
    )[0]
    for layer in encoder.layers[:-1]:
        query, key, value = _heads(linear(states, layer.weight, layer.bias), layer, 3)
        context = attention(query, key, value, ends, ends, longest, longest)
        states = _rest(layer, context, states)
    layer, hidden = encoder.layers[-1], states.shape[-1]
    first = states[ends[:-1].long()]
    (query,) = _heads(linear(first, layer.weight[:hidden], layer.bias[:hidden]), layer, 1)
    key, value = _heads(linear(states, layer.weight[hidden:], layer.bias[hidden:]), layer, 2)
    one_each = torch.arange(len(ends), dtype=torch.int32, device=ends.device)
    context = attention(query, key, value, one_each, ends, 1, longest)
    return _rest(layer, context, first)[:, None]


def _heads(states: torch.Tensor, layer: Any, parts: int) -> tuple[torch.Tensor, ...]:
    """Divide (T, parts * H) into ``parts`` of shape (T, heads, head size)."""
    divided: tuple[torch.Tensor, ...] = states.unflatten(-1, (parts, -1, layer.head_size)).unbind(1)
    return divided


def _rest(layer: Any, context: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    rows = layer.after_attention(context.flatten(1), states)
    output: torch.Tensor = layer.output(layer.intermediate(rows), rows)
    return output


def one_by_one(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    query_ends: torch.Tensor,
    key_ends: torch.Tensor,
    *_: int,
) -> torch.Tensor:
    """Attention for a CPU, with one kernel for each sequence."""

    def divided(states: torch.Tensor, ends: torch.Tensor) -> Any:
        return states.transpose(0, 1).split(ends.diff().tolist(), dim=1)

    parts = zip(
        divided(query, query_ends), divided(key, key_ends), divided(value, key_ends), strict=True
    )
    return torch.cat([scaled_dot_product_attention(*each) for each in parts], 1).transpose(0, 1)


def _padded(subject: Subject) -> PaddedForward:
    tokens = subject.sizes.production_tokens
    passes = suitable_passes(subject.device.type, tokens)
    model = through_torch(subject.model(), torch.float16, subject.device)
    torch_passes = TorchPasses(model, subject.device)
    return PaddedForward(
        compute=torch_passes.compute,
        pad_id=subject.config.pad_token_id or 0,
        document_type=subject.tokenizer.template.document_type,
        forward_tokens_max=passes.tokens_max,
        pass_cost_tokens=passes.cost_tokens,
        length_step=1,
        length_max=subject.tokenizer.pair_tokens_max,
        collect=torch_passes.collect,
    )


def _count(forward: Callable[[Sequence[Encoded]], Sized], batch: Sequence[Encoded]) -> int:
    return len(forward(batch))
