"""How inputs reach a device. What a device then computes is in `test_cross_encoder`."""

from typing import cast

import torch

from serve_app.engine.forward import to_device


class Recorder:
    """Says what was asked of a tensor, as no card is here."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def pin_memory(self) -> "Recorder":
        self.asked.append("pin")
        return self

    def to(self, device: torch.device, *, non_blocking: bool = False) -> "Recorder":
        self.asked.append(f"to {device.type}, {'not ' if non_blocking else ''}waiting")
        return self


def test_a_card_gets_its_inputs_from_pinned_memory_while_it_computes() -> None:
    recorder = Recorder()

    to_device(cast(torch.Tensor, recorder), torch.device("cuda"))

    assert recorder.asked == ["pin", "to cuda, not waiting"]


def test_a_cpu_has_its_inputs_already() -> None:
    tensor = torch.arange(3)

    assert to_device(tensor, torch.device("cpu")).data_ptr() == tensor.data_ptr()
