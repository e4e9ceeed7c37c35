"""Which device and number format a model runs in, and whether the torch build can drive it.

The device comes from torch, never from Ray's resource counts: a test cluster may promise GPUs
that are not there.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from serve_app.engine.sources import ModelLoadError

PRECISIONS = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

CGROUP = Path("/sys/fs/cgroup")
"""Where a container finds its own limits (cgroup v2)."""

AMPERE = (8, 0)
"""The first compute capability with bfloat16."""

DRIVER = Path("/dev/nvidiactl")
"""There while NVIDIA's driver is, in a container that was given cards too."""

NO_CARDS = ("", "-1", "NoDevFiles")
"""What the variable says where a process is to see none."""


def pick_device() -> torch.device:
    """CUDA if torch sees one, else the CPU.

    Raises: ModelLoadError for a card that this torch build has no kernels for, and for one that was
        given to this process and is not there: a replica that went on without the card that failed
        it would serve on, a hundred times slower than its like.
    """
    if not torch.cuda.is_available():
        # Ray names the cards that it gave to a replica, and leaves it alone otherwise. A test
        # cluster's cards are promised only, on machines without a driver.
        given = os.environ.get("CUDA_VISIBLE_DEVICES", "")  # noqa: TID251 - CUDA's own switch
        if torch.version.cuda and given not in NO_CARDS and DRIVER.exists():
            raise ModelLoadError(
                f"CUDA_VISIBLE_DEVICES={given} names a card, but CUDA finds none: look at "
                "`nvidia-smi` on this node"
            )
        return torch.device("cpu")
    problem = missing_kernels(torch.cuda.get_device_capability(), torch.cuda.get_arch_list())
    if problem is not None:
        raise ModelLoadError(f"{torch.cuda.get_device_name()}: {problem}")
    return torch.device("cuda")


def missing_kernels(capability: tuple[int, int], built_for: Sequence[str]) -> str | None:
    """Why a card cannot run this torch build, or ``None`` if it can. Pure.

    Machine code (``sm_75``) runs on its own major version from its minor version up; ``sm_90a`` on
    that very version; intermediate code (``compute_90``) on anything as new or newer.
    Source: CUDA C++ programming guide, "Application Compatibility".

    Args:
        built_for: As from `torch.cuda.get_arch_list`.
    """
    for name in built_for:
        match = re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", name)
        if match is None:
            continue
        kind, major, minor, exact = match.groups()
        version = int(major), int(minor)
        if version == capability:
            return None
        if (
            not exact
            and version < capability
            and (kind == "compute" or version[0] == capability[0])
        ):
            return None
    return (
        f"compute capability {capability[0]}.{capability[1]}, but this torch build has kernels "
        f"for {' '.join(built_for)} only; install a build that has them (for a V100, 7.0: torch "
        "2.10.0, or the cu126 builds up to 2.14)"
    )


def pick_precision(wanted: str, device: torch.device) -> torch.dtype:
    """The number format for ``wanted``, which is a name in `PRECISIONS` or ``auto``.

    Raises: ModelLoadError for bfloat16 on a card without it, or an unknown name.
    """
    if wanted == "auto":
        if device.type == "cuda":
            return torch.float16
        return torch.bfloat16 if cpu_multiplies_bfloat16() else torch.float32
    if wanted not in PRECISIONS:
        raise ModelLoadError(f"precision {wanted}: not one of auto, {', '.join(PRECISIONS)}")
    if wanted == "bfloat16" and device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        if capability < AMPERE:
            raise ModelLoadError(
                f"{torch.cuda.get_device_name()} has no bfloat16; set precision to auto or float16"
            )
    return PRECISIONS[wanted]


def cpu_multiplies_bfloat16() -> bool:
    """Whether bfloat16 is the faster format here, which takes a matrix unit (AMX).

    AVX512-BF16 alone is not enough: a Sapphire Rapids without AMX takes 7.3 ms for a product of
    (1024, 384) and (384, 1536) in bfloat16, 3.9 ms in float32 (torch 2.13, two cores). oneDNN's
    own answer says less still: yes on every AVX-512 CPU.
    """
    # torch 2.10, which the GPU images pin, may not have the question yet; float32 is right then.
    ask = getattr(torch.cpu, "get_capabilities", None)
    return ask is not None and bool(ask().get("amx_bf16", False))


@dataclass(frozen=True, slots=True)
class Passes:
    """What forward passes should be like on a device."""

    tokens_max: int
    """Padding included."""

    cost_tokens: int
    """See `serve_app.engine.packing.plan`."""


def suitable_passes(device: torch.device, batch_tokens_max: int) -> Passes:
    """A CPU is fastest while a pass stays in its caches; a card only with much to do at once.

    On a CPU with AVX2, 512 tokens give 42.8 documents/s, 1,024 give 40.2, 4,096 give 34.3 (12
    layers, float32, `benchmarks.engine`); with a matrix unit 2,048 were best. A card computes about
    a thousand tokens while the kernels of a pass are launched: estimated, not measured.
    """
    if device.type != "cpu":
        return Passes(tokens_max=batch_tokens_max, cost_tokens=1_024)
    if cpu_multiplies_bfloat16():
        return Passes(tokens_max=2_048, cost_tokens=64)
    return Passes(tokens_max=512, cost_tokens=16)


def use_cpu_threads(threads: int) -> None:
    """Set torch's threads for this process; 0 means all cores it may run on.

    Ray sets ``OMP_NUM_THREADS`` from a replica's ``num_cpus``, so torch's default is often 1.
    """
    torch.set_num_threads(threads or cpu_cores())


def cpu_cores(cgroup: Path = CGROUP) -> int:
    """Those that this process may run on, and no more than its container may use of them."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))
