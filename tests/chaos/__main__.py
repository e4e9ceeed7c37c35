"""``python -m tests.chaos``: inject faults into the service, and print the effect on the ledger."""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from tests.chaos.faults import POSTGRESQL, SQLITE
from tests.chaos.harness import Report, run


@click.command()
@click.option("--database", type=click.Choice([SQLITE, POSTGRESQL]), required=True)
@click.option("--kills", type=click.IntRange(1), default=20, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True, help="Fixes the faults' order.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path))
def main(database: str, kills: int, seed: int, json_file: Path | None) -> None:
    """Kill processes of a real service under traffic, then check every charge.

    Exits with status 1 and keeps the service's folder if a guarantee was violated.
    """
    console = Console(highlight=False)
    folder = Path(tempfile.mkdtemp(prefix="rerank-chaos-"))
    report = run(database, kills, seed, folder, console.print)
    if json_file is not None:
        json_file.write_text(json.dumps(report.as_json(), indent=2) + "\n")
    show(console, report)
    if report.violations:
        console.print(f"Logs and database: {folder}")
        sys.exit(1)
    shutil.rmtree(folder)


def show(console: Console, report: Report) -> None:
    table = Table("event", "count", title=f"{report.kills} kills, {report.database}")
    for name, count in report.faults.items():
        table.add_row(f"fault: {name}", f"{count:,}")
    for name, count in report.requests.items():
        table.add_row(f"client saw: {name}", f"{count:,}")
    for name, count in report.charges_without_200.items():
        table.add_row(f"charged without 200: {name}", f"{count:,}")
    for name, count in report.reservations.items():
        table.add_row(f"reservations: {name}", f"{count:,}")
    table.add_row("charges", f"{report.charges:,}")
    table.add_row("tenants with balanced books", f"{report.tenants_balanced:,}")
    table.add_row("violated guarantees", f"{len(report.violations):,}")
    console.print(table)
    for violation in report.violations:
        console.print(violation, soft_wrap=True, markup=False)


if __name__ == "__main__":
    main()
