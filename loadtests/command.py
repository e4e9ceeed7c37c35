"""Runs of Locust as child processes, because importing it patches Python's standard library."""

import json
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

LOCUSTFILE = Path(__file__).with_name("locustfile.py")
PACKAGES = ("locust", "matplotlib", "prometheus_client", "scipy")


class LoadTestFailed(Exception):
    """A run that gave no result."""


class Interrupted(LoadTestFailed):
    """A run that ended early."""


def missing_packages() -> list[str]:
    """Return the packages of the extra ``loadtest`` that are not installed."""
    return [name for name in PACKAGES if find_spec(name) is None]


def locust_command(arguments: Sequence[str]) -> list[str]:
    """Return the command for a run without Locust's page and its own tables of progress."""
    quiet = ("--headless", "--only-summary", "--loglevel", "WARNING")
    return [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), *quiet, *arguments]


def wait(command: Sequence[str], output: IO[bytes] | None = None) -> int:
    """Run a command and return its exit status. Ctrl-C interrupts it, and it may finish.

    Args:
        output: Where its output goes, if not to this process's.
    """
    process = subprocess.Popen(command, stdout=output, stderr=output)  # noqa: S603 - locust_command
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue  # It has received the signal, too.


def measure(arguments: Sequence[str], folder: Path, name: str) -> dict[str, Any]:
    """Run Locust, and return the summary.

    Args:
        arguments: Options of the run.
        folder: Where the files of the run go.
        name: The start of their names.

    Raises: LoadTestFailed: Locust ended without a result; its output is in ``name.log``.
    """
    file, log = folder / f"{name}.json", folder / f"{name}.log"
    file.unlink(missing_ok=True)
    command = locust_command([*arguments, "--summary", str(file)])
    with log.open("wb") as output:
        wait(command, output)
    if not file.exists():
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        last = lines[-1] if lines else "no output"
        raise LoadTestFailed(f"Locust gave no result: {last} ({log})")
    summary: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return summary
