"""Listening ports and their programs. ``python -m tests.support.listening`` prints them as JSON."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:  # This module runs on every node of the lab, and this import takes seconds.
    from testkit.service import Service

ANY_ADDRESS = ("*", "0.0.0.0", "[::]")  # noqa: S104 - found, not bound


@dataclass(frozen=True, slots=True)
class Port:
    """A listening port of a program, which has its name in ``docs/operate/security.md``."""

    program: str
    protocol: str
    """``tcp`` or ``udp``."""

    address: str
    """As `ss` prints it: ``*`` and ``0.0.0.0`` mean every address of the machine."""

    number: int

    def target(self, machine: str = "127.0.0.1") -> str:
        """Return address and port for a client that knows the machine by this address."""
        return f"{machine if self.address in ANY_ADDRESS else self.address}:{self.number}"


def ports_of(service: "Service") -> set[Port]:
    """Return the ports of all processes of a service."""
    pids = {process.pid for process in [psutil.Process(service.process.pid), *service.family()]}
    return {port for pid, port in _ports() if pid in pids}


def ports() -> set[Port]:
    """Return the ports of all processes in this network namespace."""
    return {port for _, port in _ports()}


def _ports() -> Iterator[tuple[int, Port]]:
    sockets = subprocess.run(
        ["ss", "--listening", "--tcp", "--udp", "--numeric", "--processes", "--no-header"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for line in sockets.splitlines():
        protocol, _, _, _, local, *_ = line.split()
        address, _, number = local.rpartition(":")
        for pid in {int(each) for each in re.findall(r"pid=(\d+)", line)}:
            try:
                program = _program(psutil.Process(pid))
            except psutil.NoSuchProcess:
                continue  # It has ended since, and no longer listens.
            yield pid, Port(program, protocol, address, int(number))


def _program(process: psutil.Process) -> str:
    """Return the name in the table: a replica's deployment, or a script's file or module."""
    words = process.cmdline()
    title = words[0]
    if title.startswith("ray::ServeReplica:"):
        return title.split(":")[4].split("-")[0]
    if title.startswith("ray::"):
        return title.split(".")[0].split("(")[0].strip()
    modules = [words[words.index("-m") + 1]] if "-m" in words else []
    scripts = [Path(word).name for word in words[1:] if word.endswith(".py")]
    named = [Path(word).name for word in words if Path(word).name == "rerank-serve"]
    return [*named, *scripts, *modules, Path(title).name][0]


if __name__ == "__main__":
    sys.stdout.write(json.dumps([asdict(port) for port in ports()]))
