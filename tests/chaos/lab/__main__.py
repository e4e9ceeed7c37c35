"""``python -m tests.chaos.lab``: inject faults into the lab, and print their effects."""

import json
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from cluster.lab import plan
from cluster.lab.lab import Lab
from cluster.lab.namespaces import LabError
from cluster.lab.service import environment
from cluster.lab.start import up
from tests.chaos.lab.faults import BRIEF, BY_NAME


@click.command()
@click.option(
    "--fault",
    "faults",
    multiple=True,
    type=click.Choice([*BY_NAME]),
    help="A fault; repeatable.  [default: all of them]",
)
@click.option("--sequence", type=int, help="Number of brief faults to inject at random.")
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of --sequence.")
@click.option("--requests-per-s", type=float, default=8.0, show_default=True)
@click.option(
    "--json",
    "json_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Append the results to this file.",
)
@click.option(
    "--keep-logs",
    type=click.Path(file_okay=False, path_type=Path),
    help="Copy the /tmp of every host to this folder, which must not exist.",
)
def main(
    faults: tuple[str, ...],
    sequence: int | None,
    seed: int,
    requests_per_s: float,
    json_file: Path | None,
    keep_logs: Path | None,
) -> None:
    """Start the lab, inject faults under load, check every charge, and remove the lab.

    Exits with status 1 if the ledger is wrong, or if a fault could not be injected.
    """
    console = Console(highlight=False)
    # `run` removes the lab when this exit interrupts it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        if sequence is None:
            result = run(faults or tuple(BY_NAME), requests_per_s, console, keep_logs)
        else:
            names = tuple(Random(seed).choices(faults or BRIEF, k=sequence))
            result = run(names, requests_per_s, console, keep_logs, pace="quick") | {"seed": seed}
    except LabError as error:
        raise click.ClickException(str(error)) from None
    if json_file is not None:
        append(json_file, result)
    show(console, result)
    if result["problem"]:
        raise click.ClickException(result["problem"])
    if result["ledger"]["violations"]:
        sys.exit(1)


def run(
    faults: Sequence[str],
    requests_per_s: float,
    console: Console,
    keep_logs: Path | None,
    pace: str = "steady",
) -> dict[str, Any]:
    """Start a lab, inject faults, and remove the lab; return the results. Raises: LabError."""
    with tempfile.TemporaryDirectory(prefix="rerank-lab-") as folder:
        lab = up(Path(folder) / "lab", None, console.print)
        try:
            result: dict[str, Any] = json.loads(_inject(lab, [str(requests_per_s), pace, *faults]))
            return {"up_s": lab.up_s, "requests_per_s": requests_per_s, "pace": pace, **result}
        finally:
            if keep_logs is not None:
                lab.end()
                shutil.copytree(lab.folder / "hosts", keep_logs, symlinks=True, ignore=_no_sockets)
            lab.down()


def append(path: Path, result: dict[str, Any]) -> None:
    """Add the results of a run to a file, which need not exist."""
    runs = json.loads(path.read_text())["runs"] if path.exists() else []
    path.write_text(json.dumps({"runs": [*runs, result]}, indent=2) + "\n")


def _inject(lab: Lab, arguments: Sequence[str]) -> bytes:
    """Run `tests.chaos.lab.run` in the network of the client host, where it sees all processes.

    SIGTERM ends that program early; it still returns the results of the faults so far.
    """
    command = [sys.executable, "-m", "tests.chaos.lab.run", str(lab.folder), *arguments]
    with subprocess.Popen(
        [*lab.entering(plan.CLIENT, ["--net"]), *command],
        env=environment(lab.folder, lab.token),
        stdout=subprocess.PIPE,
    ) as child:
        before = signal.signal(signal.SIGTERM, lambda *_: child.terminate())
        output, _ = child.communicate()
        signal.signal(signal.SIGTERM, before)
    if child.returncode != 0:
        raise LabError("The faults could not be injected; the messages above say why.")
    return output


def _no_sockets(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if (Path(folder) / name).is_socket()]


def show(console: Console, result: dict[str, Any]) -> None:
    table = Table("fault", "sent", "failed", "repeated", "added p99", "slowest", "full capacity")
    for each in result["faults"]:
        full_capacity_s = each["full_capacity_s"]
        table.add_row(
            each["fault"],
            str(each["sent"]),
            str(each["failed"]),
            f"{each['repeated']} {each['first_outcomes'] or ''}",
            f"{each['p99_added_s']:.2f} s",
            f"{each['slowest_s']:.1f} s",
            "not in time" if full_capacity_s is None else f"{full_capacity_s:.0f} s",
        )
    console.print(table)
    console.print(result["ledger"])


if __name__ == "__main__":
    main()
