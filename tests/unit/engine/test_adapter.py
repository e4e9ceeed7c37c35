"""The adapter's file format: merging, and the error messages for unusable files."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from serve_app.engine.embedded import adapter
from serve_app.engine.embedded.adapter import AdapterError, merge, read, start, write_adapter

METADATA = {"base": "b", "base_sha256": "0" * 64, "config": '{"num_labels": 1}', "license": "any"}
BASE = {
    "dense.weight": torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]),
    "dense.bias": torch.tensor([1.0, 2.0]),
    "other.weight": torch.zeros(2, 2),
}
TENSORS = {
    "dense.weight.lora_A": torch.tensor([[1.0, 0.0, 2.0]]).half(),
    "dense.weight.lora_B": torch.tensor([[1.0], [-1.0]]).half(),
    "dense.weight.rows": torch.tensor([[127, -127, 0], [1, 2, 3]], dtype=torch.int8),
    "dense.weight.scale": torch.tensor([0.5, 2.0]),
    "dense.weight.delta": torch.full((2, 3), 0.25).half(),
    "dense.bias.delta": torch.tensor([0.1, 0.2]),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "adapter.safetensors"
    write_adapter(path, TENSORS, METADATA)
    return path


def header_and_data(file: Path) -> tuple[dict[str, Any], bytes]:
    content = file.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def rewrite(file: Path, **metadata: str | None) -> None:
    """Change only the metadata; ``None`` removes an entry."""
    header, data = header_and_data(file)
    changed = {**header["__metadata__"], **metadata}
    header["__metadata__"] = {key: value for key, value in changed.items() if value is not None}
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + data)


def test_an_adapter_is_read_as_it_was_written(file: Path) -> None:
    found = read(file)

    assert (found.base, found.base_sha256, found.config) == ("b", "0" * 64, {"num_labels": 1})
    assert found.tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found.tensors[name].dtype == tensor.dtype
        assert found.tensors[name].equal(tensor)


def test_every_kind_of_tensor_is_added() -> None:
    merged = merge(BASE, TENSORS)

    assert merged["dense.weight"].tolist() == [
        [1 + 1 + 63.5 + 0.25, 2 + 0 - 63.5 + 0.25, 3 + 2 + 0 + 0.25],
        [4 - 1 + 2 + 0.25, 5 + 0 + 4 + 0.25, 6 - 2 + 6 + 0.25],
    ]
    assert merged["dense.bias"].tolist() == pytest.approx([1.1, 2.2])
    assert merged["other.weight"].equal(BASE["other.weight"])
    assert BASE["dense.bias"].tolist() == [1, 2], "the base itself stays as it is"


def test_products_of_float16_are_not_rounded_to_float16() -> None:
    factors = {
        "other.weight.lora_A": torch.tensor([[1.0, 1 + 2**-10]]).half(),
        "other.weight.lora_B": torch.tensor([[1 + 2**-10], [1.0]]).half(),
    }

    merged = merge(BASE, factors)["other.weight"]

    assert merged.dtype is torch.float32
    assert merged[0, 1].item() == (1 + 2**-10) ** 2


def test_a_parameter_starts_from_the_encoder_or_from_zero() -> None:
    like = {
        "bert.layer.weight": torch.ones(2, 2),
        "bert.more.weight": torch.ones(3),
        "bert.longer.weight": torch.ones(4),
    }
    encoder = {"layer.weight": torch.full((2, 2), 5.0).half(), "longer.weight": torch.ones(3)}

    state = start(like, encoder)

    assert {name: value.tolist() for name, value in state.items()} == {
        "bert.layer.weight": [[5, 5], [5, 5]],
        "bert.more.weight": [0, 0, 0],
        "bert.longer.weight": [0, 0, 0, 0],
    }
    assert {value.dtype for value in state.values()} == {torch.float32}


NAN = torch.tensor([float("nan"), 0.0])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"nowhere.weight.delta": NAN}, "nowhere.weight.delta belongs to no parameter"),
        ({"dense.bias.gamma": NAN}, "dense.bias.gamma belongs to no parameter"),
        ({"dense.bias": NAN}, "dense.bias belongs to no parameter"),
        ({"dense.bias.delta": NAN}, "dense.bias.delta holds values that are not finite numbers"),
        ({"dense.weight.scale": NAN}, "dense.weight.scale holds values that are not finite"),
        (
            {"dense.bias.delta": torch.zeros(3)},
            r"dense.bias.delta has shape \(3,\); expected \(2,\)",
        ),
        (
            {"dense.bias.delta": torch.zeros(2).double()},
            "dense.bias.delta is float64; expected float16 or float32",
        ),
        (
            {"dense.weight.rows": torch.zeros(2, 3)},
            "dense.weight.rows is float32; expected int8",
        ),
        (
            {"dense.weight.lora_A": torch.zeros(1, 4).half()},
            r"dense.weight.lora_A has shape \(1, 4\); expected \(1, 3\)",
        ),
        (
            {"dense.weight.lora_A": torch.zeros(4, 3).half()},
            r"dense.weight.lora_B has shape \(2, 1\); expected \(2, 4\)",
        ),
        (
            {"dense.weight.lora_A": torch.tensor(0.0).half()},
            r"dense.weight.lora_A has shape \(\); expected \(3,\)",
        ),
        (
            {"dense.weight.scale": torch.zeros(3)},
            r"dense.weight.scale has shape \(3,\); expected \(2,\)",
        ),
        (
            {"dense.bias.rows": torch.zeros(2).to(torch.int8), "dense.bias.scale": torch.zeros(2)},
            r"dense.bias.rows is for a matrix; dense.bias has shape \(2,\)",
        ),
        ({"dense.weight.lora_A": None}, "dense.weight.lora_B lacks .* dense.weight.lora_A"),
        ({"dense.weight.lora_B": None}, "dense.weight.lora_A lacks .* dense.weight.lora_B"),
        ({"dense.weight.rows": None}, "dense.weight.scale lacks .* dense.weight.rows"),
        ({"dense.weight.scale": None}, "dense.weight.rows lacks .* dense.weight.scale"),
    ],
)
def test_a_tensor_without_a_matching_parameter_is_named(
    changes: dict[str, torch.Tensor | None], says: str
) -> None:
    changed = {**TENSORS, **changes}
    tensors = {name: tensor for name, tensor in changed.items() if tensor is not None}

    with pytest.raises(AdapterError, match=f"^tensor {says}"):
        merge(BASE, tensors)


@pytest.mark.parametrize("name", TENSORS)
def test_a_flipped_bit_is_detected_and_its_tensor_named(file: Path, name: str) -> None:
    content = bytearray(file.read_bytes())
    header, data = header_and_data(file)
    first, _ = header[name]["data_offsets"]
    content[len(content) - len(data) + first] ^= 1
    file.write_bytes(content)

    with pytest.raises(AdapterError, match=f"^tensor {name} is damaged: its checksum is "):
        read(file)


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="the file is missing"):
        read(tmp_path / "nothing")


@pytest.mark.parametrize("kept", [0, 7, 100, -1])
def test_a_truncated_file_is_reported(file: Path, kept: int) -> None:
    file.write_bytes(file.read_bytes()[:kept])

    with pytest.raises(AdapterError, match="not a complete safetensors file"):
        read(file)


def test_a_file_of_another_format_is_reported(file: Path) -> None:
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1\n" * 3)

    with pytest.raises(AdapterError, match="not a complete safetensors file"):
        read(file)


CHECKSUMS = {name: adapter.checksum(tensor) for name, tensor in TENSORS.items()}


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ({"format": "rerank-serve-adapter-2"}, "its format is rerank-serve-adapter-2; .* reads"),
        ({"format": None}, "its format is none; .* reads rerank-serve-adapter-1"),
        ({"checksums": None}, "no JSON object checksums"),
        ({"checksums": "{"}, "no JSON object checksums"),
        ({"checksums": "[]"}, "no JSON object checksums"),
        ({"config": None}, "no JSON object config"),
        ({"checksums": json.dumps(CHECKSUMS | {"lost": "0"})}, "tensor lost is missing"),
        (
            {"checksums": json.dumps({**CHECKSUMS, "dense.bias.delta": "0"})},
            "tensor dense.bias.delta is damaged",
        ),
        ({"checksums": "{}"}, "tensor dense.bias.delta has no checksum"),
    ],
)
def test_foreign_metadata_is_reported(
    file: Path, metadata: dict[str, str | None], says: str
) -> None:
    rewrite(file, **metadata)

    with pytest.raises(AdapterError, match=says):
        read(file)
