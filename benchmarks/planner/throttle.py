"""Give processes only a share of a core. Needs root and version 1 of Linux's control groups."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

CPU_GROUPS = Path("/sys/fs/cgroup/cpu")
PERIOD_US = 8_000
"""The period is so short that the processes are slow all the time, instead of running at full speed
between long pauses."""


@contextmanager
def limited(processes: Sequence[psutil.Process], share: float) -> Iterator[None]:
    """Limit the processes together to ``share`` of a core during the block."""
    group = CPU_GROUPS / f"rerank-planner-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        raise SystemExit(f"The gateway cannot be slowed down: {error}") from None
    try:
        (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
        (group / "cpu.cfs_quota_us").write_text(str(round(PERIOD_US * share)))
        _move(processes, group)
        yield
    finally:
        _move(processes, CPU_GROUPS)
        group.rmdir()


def _move(processes: Sequence[psutil.Process], group: Path) -> None:
    for process in processes:
        (group / "cgroup.procs").write_text(str(process.pid))
