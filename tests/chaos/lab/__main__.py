"""``python -m tests.chaos.lab``: inject faults into the lab, and print what they cost."""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from cluster.lab import plan
from cluster.lab.lab import Lab, up
from cluster.lab.namespaces import LabError
from cluster.lab.service import environment
from tests.chaos.lab.faults import BY_NAME


@click.command()
@click.option(
    "--fault",
    "faults",
    multiple=True,
    type=click.Choice([*BY_NAME]),
    help="A fault; repeatable.  [default: all of them]",
)
@click.option("--requests-per-s", type=float, default=8.0, show_default=True)
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--keep-logs", type=click.Path(file_okay=False, path_type=Path))
def main(
    faults: tuple[str, ...], requests_per_s: float, json_file: Path | None, keep_logs: Path | None
) -> None:
    """Start the lab, inflict faults under load, check every charge, and remove the lab.

    Exits with status 1 if the ledger is wrong, or if a fault could not be inflicted.
    """
    console = Console(highlight=False)
    try:
        result = run(faults or tuple(BY_NAME), requests_per_s, console, keep_logs)
    except LabError as error:
        raise click.ClickException(str(error)) from None
    if json_file is not None:
        json_file.write_text(json.dumps(result, indent=2) + "\n")
    show(console, result)
    if result["problem"]:
        raise click.ClickException(result["problem"])
    if result["ledger"]["violations"]:
        sys.exit(1)


def run(
    faults: tuple[str, ...], requests_per_s: float, console: Console, keep_logs: Path | None
) -> dict[str, Any]:
    """Raises: LabError."""
    with tempfile.TemporaryDirectory(prefix="rerank-lab-") as folder:
        lab = up(Path(folder) / "lab", None, console.print)
        try:
            result: dict[str, Any] = json.loads(_run_inside(lab, faults, requests_per_s))
            return {"up_s": lab.up_s, **result}
        finally:
            if keep_logs is not None:
                lab.end()
                shutil.copytree(lab.folder / "hosts", keep_logs, symlinks=True, ignore=_no_sockets)
            lab.down()


def _run_inside(lab: Lab, faults: tuple[str, ...], requests_per_s: float) -> bytes:
    """Run `tests.chaos.lab.run` in the network of the client host, but with all processes."""
    command = [sys.executable, "-m", "tests.chaos.lab.run", str(lab.folder), str(requests_per_s)]
    done = subprocess.run(
        [*lab.entering(plan.CLIENT, ["--net"]), *command, *faults],
        env=environment(lab.folder, lab.token),
        stdout=subprocess.PIPE,
        check=False,
    )
    if done.returncode != 0:
        raise LabError("The faults could not be inflicted; the messages above say why.")
    return done.stdout


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
