"""The machine on which a benchmark ran."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Machine:
    """The properties of a machine with most influence on the figures."""

    processor: str
    cpus: int
    python: str


def machine() -> Machine:
    return Machine(_processor(), os.cpu_count() or 0, platform.python_version())


def _processor() -> str:
    """Return the processor's name from the kernel, or else the architecture."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.machine()
