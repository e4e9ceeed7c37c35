"""How much memory does a warm-up take, and is a lack of it reported in one line?"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.gpu.subject import Subject
from serve_app.domain.errors import EngineFailure

MIB = 2**20


def run(subject: Subject, found: dict[str, Any]) -> None:
    for tokens in subject.sizes.warm_up_tokens:
        found[f"warm_up_{tokens}_tokens"] = row = _warm_up(subject, tokens)
        print(f"  warm-up with {tokens} tokens: {row}")
    engine = subject.engine("float16", subject.sizes.production_tokens)
    with _little_memory(subject.device):
        try:
            engine.warm_up()
        except EngineFailure as failure:
            found["lack_of_memory"] = str(failure)
        else:
            found["lack_of_memory"] = "not reached: the warm-up fitted in the memory"
    found["in_one_line"] = "\n" not in found["lack_of_memory"]
    print(f"  lack of memory: {found['lack_of_memory']}")


def _warm_up(subject: Subject, tokens: int) -> dict[str, int]:
    if subject.device.type != "cuda":
        subject.engine("float16", tokens).warm_up()
        return {}
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    engine = subject.engine("float16", tokens)
    weights = torch.cuda.memory_allocated() - before
    torch.cuda.reset_peak_memory_stats()
    engine.warm_up()
    return {
        "weights_mib": weights // MIB,
        "peak_mib": (torch.cuda.max_memory_allocated() - before) // MIB,
        "reserved_mib": torch.cuda.max_memory_reserved() // MIB,
    }


def _little_memory(device: torch.device) -> AbstractContextManager[Any]:
    """Let the device run out of memory: a GPU really, a CPU in simulation."""
    if device.type == "cuda":
        return _limited()
    simulated = torch.OutOfMemoryError("simulated: a CPU has no limit")
    return patch.object(torch.nn.Embedding, "forward", side_effect=simulated)


@contextmanager
def _limited() -> Iterator[None]:
    """Leave 32 MiB more than this process has reserved."""
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties("cuda").total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 32 * MIB) / total)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
