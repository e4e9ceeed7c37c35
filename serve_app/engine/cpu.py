"""What this machine's CPU offers, found without importing torch."""

import os
from dataclasses import dataclass
from pathlib import Path

from serve_app.engine.sources import ModelLoadError

PRECISIONS = ("float32", "bfloat16", "float16")
"""Names of the number formats, which are torch's names, too."""

CGROUP = Path("/sys/fs/cgroup")
"""Folder of a container's own limits (cgroup v2)."""

CPU_INFO = Path("/proc/cpuinfo")

GPU_DRIVERS = tuple(Path("/dev", name) for name in ("nvidiactl", "nvmap", "kfd", "dxg"))
"""One of these exists where torch can find a GPU, also inside containers: the driver of NVIDIA's
GPUs, of Jetson boards, of AMD's GPUs, or of the Windows Subsystem for Linux."""


@dataclass(frozen=True, slots=True)
class Passes:
    """Sizes of forward passes for a device."""

    tokens_max: int
    """Most tokens of a pass, padding included."""

    cost_tokens: int
    """Fixed cost of a pass in tokens; see `serve_app.engine.packing.plan`."""


def suitable_passes(device: str, batch_tokens_max: int) -> Passes:
    """Return pass sizes. A CPU is fastest while a pass fits its caches, a GPU with large passes.

    On a CPU with AVX2, passes of 512 tokens give 42.8 documents/s, 1,024 give 40.2, 4,096 give 34.3
    (12 layers, float32, `benchmarks.engine.throughput`); with a matrix unit 2,048 were best. In the
    time that a GPU needs to launch the kernels of a pass it computes about a thousand tokens:
    estimated, not measured.
    """
    if device != "cpu":
        return Passes(tokens_max=batch_tokens_max, cost_tokens=1_024)
    if cpu_multiplies_bfloat16():
        return Passes(tokens_max=2_048, cost_tokens=64)
    return Passes(tokens_max=512, cost_tokens=16)


def cpu_precision(wanted: str) -> str:
    """Return the number format for ``wanted``, a name in `PRECISIONS` or ``auto``, on this CPU.

    Raises: ModelLoadError for an unknown name.
    """
    if wanted == "auto":
        return "bfloat16" if cpu_multiplies_bfloat16() else "float32"
    if wanted not in PRECISIONS:
        raise ModelLoadError(f"precision {wanted}: not one of auto, {', '.join(PRECISIONS)}")
    return wanted


def cpu_multiplies_bfloat16() -> bool:
    """Whether bfloat16 is faster than float32 on this CPU, which requires a matrix unit (AMX).

    AVX512-BF16 alone is not enough: on a Sapphire Rapids without AMX a product of (1024, 384) and
    (384, 1536) takes 7.3 ms in bfloat16 and 3.9 ms in float32 (torch 2.13, two cores). oneDNN
    claims support on every AVX-512 CPU.
    """
    try:
        return " amx_bf16 " in CPU_INFO.read_text()
    except OSError:
        return False


def cpu_cores(cgroup: Path = CGROUP) -> int:
    """Return the number of cores that this process may use, within its container's CPU quota."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))
