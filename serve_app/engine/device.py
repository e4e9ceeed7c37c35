"""Choose the device and number format for a model.

Ray's resource counts do not matter, because a test cluster may declare GPUs that do not exist.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import torch

from serve_app.engine import cpu
from serve_app.engine.sources import ModelLoadError

PRECISIONS = {name: getattr(torch, name) for name in cpu.PRECISIONS}

AMPERE = (8, 0)
"""The first compute capability with bfloat16."""

DRIVER = Path("/dev/nvidiactl")
"""Exists when the NVIDIA driver is loaded, also in containers."""

NO_GPUS = ("", "-1", "NoDevFiles")
"""Values of ``CUDA_VISIBLE_DEVICES`` that hide all GPUs."""


def pick_device() -> torch.device:
    """Return CUDA if torch finds a GPU, else the CPU.

    Raises: ModelLoadError if this torch build has no kernels for the GPU, or if a GPU that was
        assigned to this process is missing: the CPU would be a hundred times slower.
    """
    if not torch.cuda.is_available():
        # Ray sets the variable only for a replica with GPUs, which a test cluster may declare on
        # machines without a driver.
        given = os.environ.get("CUDA_VISIBLE_DEVICES", "")  # noqa: TID251 - CUDA's own switch
        if torch.version.cuda and given not in NO_GPUS and DRIVER.exists():
            raise ModelLoadError(
                f"CUDA_VISIBLE_DEVICES={given} assigns a GPU to this process, but CUDA finds none; "
                "run `nvidia-smi` on this node"
            )
        return torch.device("cpu")
    problem = missing_kernels(torch.cuda.get_device_capability(), torch.cuda.get_arch_list())
    if problem is not None:
        raise ModelLoadError(f"{torch.cuda.get_device_name()}: {problem}")
    return torch.device("cuda")


def missing_kernels(capability: tuple[int, int], built_for: Sequence[str]) -> str | None:
    """Return why a GPU cannot run this torch build, or ``None`` if it can.

    ``built_for`` has the architectures of `torch.cuda.get_arch_list`. Machine code (``sm_75``) runs
    on its major version from its minor version up, ``sm_90a`` only on exactly that version, and
    intermediate code (``compute_90``) on its version and all newer ones. Source: CUDA C++
    programming guide, "Application Compatibility".
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
    """See `serve_app.engine.cpu.cpu_precision`.

    Raises: ModelLoadError for bfloat16 on a GPU without it, or an unknown name.
    """
    if wanted == "auto" and device.type == "cuda":
        return torch.float16
    name = cpu.cpu_precision(wanted)
    if wanted == "bfloat16" and device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        if capability < AMPERE:
            raise ModelLoadError(
                f"{torch.cuda.get_device_name()} has no bfloat16; set precision to auto or float16"
            )
    return PRECISIONS[name]


def use_cpu_threads(threads: int) -> None:
    """Set torch's thread count for this process; 0 means all cores available to it.

    Ray sets ``OMP_NUM_THREADS`` from a replica's ``num_cpus``, so torch's default is often 1.
    """
    torch.set_num_threads(threads or cpu.cpu_cores())
