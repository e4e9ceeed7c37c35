"""File format of the adapter that turns the embedded model's encoder into a cross-encoder.

It is a safetensors file with changes to parameters of `BertForSequenceClassification`. A change is
added to the encoder's parameter, or to zeros if the encoder has none. For a parameter NAME it may
hold

    NAME.lora_A (R, in) and NAME.lora_B (out, R)   float16              adds lora_B @ lora_A
    NAME.delta, shaped like the parameter          float16 or float32   is added itself
    NAME.rows (out, in) and NAME.scale (out,)      int8 and float32     adds rows * scale[:, None]

The metadata values are strings:

    format        `FORMAT`
    base          the package that holds the encoder
    base_sha256   of the encoder's weight file
    config        a JSON object: the fields of BertConfig that differ from the base
    checksums     a JSON object: `checksum` of every tensor, by name

Each tensor has its own checksum, so that errors name the damaged tensor.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

FORMAT = "rerank-serve-adapter-1"

LORA_A = ".lora_A"
LORA_B = ".lora_B"
DELTA = ".delta"
ROWS = ".rows"
SCALE = ".scale"

DTYPES = {
    LORA_A: (torch.float16,),
    LORA_B: (torch.float16,),
    DELTA: (torch.float16, torch.float32),
    ROWS: (torch.int8,),
    SCALE: (torch.float32,),
}
PARTNERS = {LORA_A: LORA_B, LORA_B: LORA_A, ROWS: SCALE, SCALE: ROWS}

State = Mapping[str, torch.Tensor]


class AdapterError(Exception):
    """An adapter cannot be used; the caller adds the file to the message."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """Content of an adapter file."""

    base: str
    base_sha256: str
    config: dict[str, Any]
    tensors: State


def read(path: Path) -> Adapter:
    """Return the adapter, each tensor as it was written. Raises: AdapterError."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.offset_keys()}
    except FileNotFoundError as error:
        raise AdapterError("the file is missing") from error
    except (OSError, SafetensorError) as error:
        raise AdapterError(f"it is not a complete safetensors file ({error})") from error
    if metadata.get("format") != FORMAT:
        found = metadata.get("format", "none")
        raise AdapterError(f"its format is {found}; this version reads {FORMAT}")
    _check_sums(tensors, _json_object(metadata, "checksums"))
    return Adapter(
        base=metadata.get("base", "none"),
        base_sha256=metadata.get("base_sha256", "none"),
        config=_json_object(metadata, "config"),
        tensors=tensors,
    )


def write_adapter(path: Path, tensors: State, metadata: Mapping[str, str]) -> None:
    """Format and checksums are added to ``metadata``."""
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    checksums = {name: checksum(tensor) for name, tensor in sorted(tensors.items())}
    added = {"format": FORMAT, "checksums": json.dumps(checksums)}
    path.write_bytes(save(tensors, {**metadata, **added}))


def checksum(tensor: torch.Tensor) -> str:
    """Return the first 16 hex digits of the SHA-256 of the tensor's bytes."""
    data = tensor.contiguous().flatten().view(torch.uint8).numpy()
    return hashlib.sha256(data).hexdigest()[:16]


def start(like: State, encoder: State) -> dict[str, torch.Tensor]:
    """Return the model's parameters before the merge, in float32.

    ``like`` is a state dict of the model, for its names and shapes. ``encoder`` is that of the
    base, whose names lack the prefix ``bert.``.
    """
    state = {}
    for name, parameter in like.items():
        found = encoder.get(name.removeprefix("bert."))
        if found is None or found.shape != parameter.shape:
            found = torch.zeros(parameter.shape)
        state[name] = found.float()
    return state


def merge(base_state: State, tensors: State) -> dict[str, torch.Tensor]:
    """Return ``base_state``, as made by `start`, with all ``tensors`` added in float32.

    Raises: AdapterError when a tensor fits no parameter.
    """
    for key in sorted(tensors):
        _check_tensor(key, base_state, tensors)
    merged = {}
    for name, parameter in base_state.items():
        value = parameter.float()
        if name + LORA_A in tensors:
            value = value + tensors[name + LORA_B].float() @ tensors[name + LORA_A].float()
        if name + DELTA in tensors:
            value = value + tensors[name + DELTA].float()
        if name + ROWS in tensors:
            value = value + tensors[name + ROWS].float() * tensors[name + SCALE][:, None]
        merged[name] = value
    return merged


def _json_object(metadata: Mapping[str, str], key: str) -> dict[str, Any]:
    try:
        value = json.loads(metadata.get(key, ""))
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise AdapterError(f"its metadata has no JSON object {key}")
    return value


def _check_sums(tensors: State, checksums: Mapping[str, str]) -> None:
    for name in sorted(tensors.keys() | checksums.keys()):
        if name not in tensors:
            raise AdapterError(f"tensor {name} is missing")
        if name not in checksums:
            raise AdapterError(f"tensor {name} has no checksum")
        found = checksum(tensors[name])
        if found != checksums[name]:
            raise AdapterError(
                f"tensor {name} is damaged: its checksum is {found}, not {checksums[name]}"
            )


def _check_tensor(key: str, base_state: State, tensors: State) -> None:
    name, dot, word = key.rpartition(".")
    suffix = dot + word
    if name not in base_state or suffix not in DTYPES:
        raise AdapterError(f"tensor {key} belongs to no parameter of the model")
    tensor = tensors[key]
    if suffix in PARTNERS and name + PARTNERS[suffix] not in tensors:
        raise AdapterError(f"tensor {key} lacks its partner {name}{PARTNERS[suffix]}")
    if tensor.dtype not in DTYPES[suffix]:
        expected = " or ".join(_words(dtype) for dtype in DTYPES[suffix])
        raise AdapterError(f"tensor {key} is {_words(tensor.dtype)}; expected {expected}")
    shape = tuple(base_state[name].shape)
    if suffix != DELTA and len(shape) != 2:
        raise AdapterError(f"tensor {key} is for a matrix; {name} has shape {shape}")
    wanted = _shape(suffix, shape, name, tensors)
    if tuple(tensor.shape) != wanted:
        raise AdapterError(f"tensor {key} has shape {tuple(tensor.shape)}; expected {wanted}")
    if tensor.is_floating_point() and not tensor.isfinite().all():
        raise AdapterError(f"tensor {key} holds values that are not finite numbers")


def _shape(suffix: str, shape: tuple[int, ...], name: str, tensors: State) -> tuple[int, ...]:
    """Return the shape that the tensor must have; ``lora_A`` determines the rank."""
    if suffix == LORA_A:
        return (*tensors[name + LORA_A].shape[:1], *shape[1:])
    if suffix == LORA_B:
        return (*shape[:1], *tensors[name + LORA_A].shape[:1])
    return shape[:1] if suffix == SCALE else shape


def _words(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
