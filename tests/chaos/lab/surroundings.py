"""Faults of what a node's processes depend on: its clock and its disk."""

from pathlib import Path

from cluster.lab import plan
from cluster.lab.lab import Lab
from cluster.lab.namespaces import LabError
from tests.chaos.lab.fault import Effect, Places

HOST = plan.BY_NAME["cpu-1"]
"""A node with a gateway."""

LIBRARIES = "usr/lib/*/faketime/libfaketime.so.1"
CLOCK = "/tmp/clock"  # noqa: S108 - inside a host, which has its own /tmp
AHEAD_S = 30
RAY_FOLDER = "/tmp/ray"  # noqa: S108 - as above
FULL = f"{RAY_FOLDER}/full"
DISK = "64m"


def clock_prepared(lab: Lab, _: Places) -> None:
    """Start the node again with a clock that can be changed. Raises: LabError."""
    library = next(Path("/").glob(LIBRARIES), None)
    if library is None:
        raise LabError("libfaketime is not installed: apt-get install faketime")
    variables = {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": CLOCK,
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    _create_again(lab)
    _set_clock(lab, 0)
    lab.start_node(HOST, ["env", *(f"{name}={value}" for name, value in variables.items())])


def clock_ahead(lab: Lab, _: Places) -> Effect:
    _set_clock(lab, AHEAD_S)
    return Effect(HOST.name)


def clock_right(lab: Lab, _: Effect) -> None:
    _set_clock(lab, 0)


def _set_clock(lab: Lab, ahead_s: int) -> None:
    lab.run(HOST.name, ["bash", "-c", f"echo {ahead_s:+d} > {CLOCK}"])


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
