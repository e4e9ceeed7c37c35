"""Faults of a node's clock and of its disk."""

import shutil
import struct
from pathlib import Path

from cluster.lab import plan
from cluster.lab.lab import Lab
from cluster.lab.namespaces import LabError, run
from tests.chaos.lab.fault import Effect, Places

HOST = plan.BY_NAME["cpu-1"]
"""A node with a gateway."""

LONG = "l"
CLOCK_CODE = Path(__file__).with_name("clock.c")
AHEAD_S = 30
RAY_FOLDER = "/tmp/ray"  # noqa: S108 - inside the host, which has its own /tmp
FULL = f"{RAY_FOLDER}/full"
DISK = "64m"


def clock_prepared(lab: Lab, _: Places) -> None:
    """Start the node again with a clock that can be changed. Raises: LabError."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise LabError("The clock fault needs a C compiler.")
    library, file = lab.folder / "clock.so", lab.folder / "clock"
    run([compiler, "-shared", "-fPIC", "-o", str(library), str(CLOCK_CODE)])
    file.write_bytes(struct.pack(LONG, 0))
    _create_again(lab)
    lab.start_node(HOST, ["env", f"LD_PRELOAD={library}", f"CLOCK_FILE={file}"])


def clock_ahead(lab: Lab, _: Places) -> Effect:
    _set_clock(lab, AHEAD_S)
    return Effect(HOST.name)


def clock_right(lab: Lab, _: Effect) -> None:
    _set_clock(lab, 0)


def _set_clock(lab: Lab, ahead_s: int) -> None:
    with (lab.folder / "clock").open("r+b") as file:  # Processes have mapped it.
        file.write(struct.pack(LONG, ahead_s))


def disk_prepared(lab: Lab, _: Places) -> None:
    """Start the node again with a small disk for Ray's files and all logs. Raises: LabError."""
    _create_again(lab)
    lab.run(HOST.name, ["mkdir", "-p", RAY_FOLDER])
    lab.run(HOST.name, ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", RAY_FOLDER])
    lab.start_node(HOST)


def disk_full(lab: Lab, _: Places) -> Effect:
    lab.run(HOST.name, ["bash", "-c", f"cat /dev/zero > {FULL} 2> /dev/null || true"])
    return Effect(HOST.name)


def disk_emptied(lab: Lab, _: Effect) -> None:
    lab.run(HOST.name, ["rm", FULL])


def _create_again(lab: Lab) -> None:
    lab.hosts[HOST.name].end()
    lab.create_host(HOST)
    lab.save()
