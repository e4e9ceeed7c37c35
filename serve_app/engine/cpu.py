"""What this machine's CPU offers, found without importing torch."""

import os
from dataclasses import dataclass
from pathlib import Path

from serve_app.engine.sources import ModelLoadError

PRECISIONS = ("float32", "bfloat16", "float16")
"""Number formats, with torch's names."""

CGROUP = Path("/sys/fs/cgroup")
"""A container's own limits (cgroup v2)."""

CPU_INFO = Path("/proc/cpuinfo")

GPU_DRIVERS = tuple(Path("/dev", name) for name in ("nvidiactl", "nvmap", "kfd", "dxg"))
"""One of these exists where torch can find a GPU, also in containers: the driver of NVIDIA, of
Jetson boards, of AMD, or of the Windows Subsystem for Linux."""


@dataclass(frozen=True, slots=True)
class Passes:
    """Sizes of forward passes; see `serve_app.engine.forward.PaddedForward`."""

    tokens_max: int
    cost_tokens: int


def suitable_passes(device: str, batch_tokens_max: int) -> Passes:
    """Return sizes: a CPU is fastest while a pass fits its caches, and a GPU with large passes.

    See `docs/decisions/0008`.
    """
    if device != "cpu":
        return Passes(tokens_max=batch_tokens_max, cost_tokens=1_024)
    if cpu_multiplies_bfloat16():
        return Passes(tokens_max=2_048, cost_tokens=64)
    return Passes(tokens_max=512, cost_tokens=16)


def cpu_precision(wanted: str) -> str:
    """Return the number format for ``wanted``, a name in `PRECISIONS` or ``auto``.

    Raises: ModelLoadError for an unknown name.
    """
    if wanted == "auto":
        return "bfloat16" if cpu_multiplies_bfloat16() else "float32"
    if wanted not in PRECISIONS:
        raise ModelLoadError(f"precision {wanted}: not one of auto, {', '.join(PRECISIONS)}")
    return wanted


def cpu_multiplies_bfloat16() -> bool:
    """Return whether bfloat16 is faster than float32 here, which requires a matrix unit (AMX).

    AVX512-BF16 alone is not enough; see `docs/decisions/0001`.
    """
    try:
        return " amx_bf16 " in CPU_INFO.read_text()
    except OSError:
        return False


def cpu_cores(cgroup: Path = CGROUP) -> int:
    """Return how many cores this process may use, within its container's CPU quota."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))
