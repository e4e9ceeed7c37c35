"""``rerank-serve ledger``: migration, retention, statements, reconciliation and backup.

Every command works while the service runs.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from glob import glob
from pathlib import Path

import click

from serve_app.cli.ledger_access import (
    CLOCK,
    DATABASE_TIMEOUT_S,
    database_option,
    in_one_line,
    open_books,
    reading_long,
    settings,
)
from serve_app.cli.reports import print_table
from serve_app.domain.formats import moment_of, time_of
from serve_app.ledger.accounts import tenant_accounts
from serve_app.ledger.db import backup
from serve_app.ledger.db.schema import migrate
from serve_app.ledger.money.calendar import day_of
from serve_app.ledger.reports import monthly_statement
from serve_app.ledger.reports.log_check import LogLine, check_logs, parse_line
from serve_app.ledger.reports.reconcile import Findings, check_books
from serve_app.ledger.writer import retention
from serve_app.ledger.writer.limits import LedgerLimits
from serve_app.private_files import private_folder

DAYS_MAX = 36_500


@click.group()
def ledger() -> None:
    """Maintain, check and back up the ledger, and print billing statements."""


@ledger.command("migrate")
@database_option
def bring_up_to_date(database_url: str | None) -> None:
    """Create or update the ledger's tables.

    A service does so automatically when it starts. Gateways of an older version cannot start with
    newer tables.
    """
    found = settings()
    with in_one_line():
        if database_url is None and found.ledger_is_in_var_dir:
            private_folder(found.var_dir)
        migrate(database_url or found.resolved_database_url)
    click.echo("The ledger's tables are up to date.")


@ledger.command("roll-up")
@click.option("--older-than-days", "days", required=True, type=click.IntRange(1, DAYS_MAX))
@database_option
def roll_up(days: int, database_url: str | None) -> None:
    """Replace charges older than this number of days by daily sums.

    The service does so automatically after `charges_kept_days`.
    """
    count_max = LedgerLimits().retired_per_transaction_max
    retired, last = 0, count_max
    while last:
        started = CLOCK.instant()
        with open_books(database_url) as connection:
            last = retention.step(connection, CLOCK.moment(), days, count_max)
        retired += last
        time.sleep(CLOCK.instant() - started)  # Let gateways write.
    click.echo(f"{retired:,} rows were replaced by sums or deleted.")


@ledger.command("statement")
@click.argument("tenant")
@click.argument("month", metavar="YYYY-MM")
@click.option("--csv", "csv_file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--html", "html_file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--so-far", is_flag=True, help="Allow a month that is not complete.")
@database_option
def print_statement(
    tenant: str,
    month: str,
    csv_file: Path | None,
    html_file: Path | None,
    so_far: bool,  # noqa: FBT001 - click's way
    database_url: str | None,
) -> None:
    """Print the billing statement of TENANT: balances, grants, and usage per day and model.

    Repeated statements of a complete month are identical to the byte, unless a gateway was still
    holding a reversal.
    """
    wanted = _month(month)
    with open_books(database_url, reading_long) as connection:
        owner = tenant_accounts.find_tenant(connection, tenant)
        statement = monthly_statement.statement(
            connection, owner, wanted, CLOCK.moment(), so_far=so_far
        )
    forms = ((csv_file, monthly_statement.render_csv), (html_file, monthly_statement.render_html))
    for path, render in forms:
        if path is not None:
            _write(path, render(statement))
    if csv_file is None and html_file is None:
        _print_statement(statement)


@ledger.command("reconcile")
@click.option(
    "--day",
    type=click.DateTime(["%Y-%m-%d"]),
    help="Day in UTC.  [default: yesterday]",
)
@click.option(
    "--logs",
    "patterns",
    multiple=True,
    metavar="GLOB",
    help="Also check these log files of all gateways; repeatable.",
)
@database_option
def reconcile(day: datetime | None, patterns: Sequence[str], database_url: str | None) -> None:
    """Check the ledger's balances and the charges of one day.

    Prints one line per difference, and exits with 1 if there is any.
    """
    now = CLOCK.moment()
    wanted = day or time_of(now) - timedelta(days=1)
    since = day_of(moment_of(wanted.replace(tzinfo=UTC)))
    named = [path for pattern in patterns for path in glob(pattern, recursive=True)]
    # Ray links its newest session under a second name.
    paths = sorted({str(Path(path).resolve()) for path in named})
    if patterns and not paths:
        raise click.ClickException("no log file matches")
    unreadable: list[str] = []
    with open_books(database_url, reading_long) as connection:
        found = [check_books(connection, since, now)]
        if paths:
            found.append(check_logs(connection, since, _lines(paths, unreadable)))
    _print_findings(found, unreadable)


@ledger.command("backup")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@database_option
def back_up(file: Path, database_url: str | None) -> None:
    """Copy a SQLite ledger to the new FILE while the service runs.

    For PostgreSQL, use pg_dump.
    """
    with in_one_line():
        backup.back_up(database_url or settings().resolved_database_url, file, DATABASE_TIMEOUT_S)


def _month(typed: str) -> int:
    try:
        time = datetime.strptime(typed, "%Y-%m").replace(tzinfo=UTC)
    except ValueError:
        raise click.BadParameter(f"'{typed}' is not a month like 2026-11.") from None
    return time.year * 100 + time.month


def _write(path: Path, text: str) -> None:
    try:
        path.write_bytes(text.encode())  # Identical on every system.
    except OSError as error:
        raise click.ClickException(str(error)) from None


def _print_statement(statement: monthly_statement.Statement) -> None:
    month = monthly_statement.month_name(statement.month)
    click.echo(f"{statement.tenant.name} ({statement.tenant.id}), {month}")
    numbers = ("Documents", "Tokens", "Amount")
    print_table(
        ("Time", "Line", "", *numbers),
        (
            (
                str(line["time"]),
                str(line["line"]),
                str(line.get("model") or line.get("reason") or ""),
                *(f"{line[name]:,}" if name in line else "" for name in ("documents", "tokens")),
                monthly_statement.aligned(int(line["amount_micro_dollars"])),
            )
            for line in monthly_statement.lines(statement)
        ),
        frozenset(numbers),
    )


def _lines(paths: Iterable[str], unreadable: list[str]) -> Iterator[LogLine]:
    """Yield all requests. Add the places of malformed lines to ``unreadable``."""
    for path in paths:
        with Path(path).open(encoding="utf-8", errors="replace") as file:
            for number, text in enumerate(file, 1):
                try:
                    line = parse_line(text)
                except ValueError:
                    unreadable.append(f"{path}:{number}")
                else:
                    if line is not None:
                        yield line


def _print_findings(found: Sequence[Findings], unreadable: Sequence[str]) -> None:
    for findings in found:
        for what, number in findings.counts.items():
            click.echo(f"{number:>12,} {what}")
    click.echo(f"{len(unreadable):>12,} unreadable log lines")
    for place in unreadable:
        click.echo(f"unreadable: {place}")
    differences = [each for findings in found for each in findings.differences]
    for difference in differences:
        click.echo(difference)
    if differences:
        raise click.ClickException(f"{len(differences):,} differences")
