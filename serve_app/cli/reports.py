"""Formatting of amounts, times and tables."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from serve_app.domain.csv_export import render_csv
from serve_app.domain.formats import dollars, moment_of, write_day, write_second
from serve_app.domain.units import Moment
from serve_app.domain.usage import USAGE_COUNTS
from serve_app.ledger.reports.usage import Grouping, UsageRow

PIPE_COLUMNS = 200
"""Width without a terminal, so that rows stay on one line."""


def utc(moment: Moment | None) -> str:
    return "-" if moment is None else write_second(moment)


def moment(time: datetime | None) -> Moment | None:
    """``time`` is in UTC unless it has a time zone."""
    if time is None:
        return None
    return moment_of(time.replace(tzinfo=time.tzinfo or UTC, microsecond=0))


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], right: frozenset[str] = frozenset()
) -> None:
    """Columns in ``right`` are right-aligned."""
    table = Table()
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(
            *(Text(cell) for cell in row)
        )  # As `Text`, because names may look like markup.
    Console(width=None if sys.stdout.isatty() else PIPE_COLUMNS, highlight=False).print(table)


def print_facts(facts: Mapping[str, str]) -> None:
    width = max(len(name) for name in facts) + 1
    for name, value in facts.items():
        click.echo(f"{name + ':':<{width}} {value}")


def print_usage(rows: Sequence[UsageRow], by: Grouping, form: str | None) -> None:
    """``json`` and ``csv`` have exact micro-dollars, for programs."""
    if form is None:
        _print_usage_table(rows, by)
        return
    records = [
        {by.value: _group(row, by)} | row.counts() | {"charged_micro_dollars": row.charged}
        for row in rows
    ]
    if form == "json":
        click.echo(json.dumps(records, indent=2))
        return
    names = (by.value, *USAGE_COUNTS, "charged_micro_dollars")
    click.echo(render_csv(names, records, line_end="\n"), nl=False)


def _print_usage_table(rows: Sequence[UsageRow], by: Grouping) -> None:
    numbers = ("Requests", "Not charged", "Documents", "Not charged ", "Tokens", "Charged")
    cells = [
        (_group(row, by), *(f"{count:,}" for count in row.counts().values()), dollars(row.charged))
        for row in rows
    ]
    print_table((by.value.capitalize(), *numbers), cells, frozenset(numbers))
    click.echo(f"Total charged: {dollars(sum(row.charged for row in rows))}")


def _group(row: UsageRow, by: Grouping) -> str:
    (group,) = row.group
    if by is not Grouping.DAY:
        return group
    return write_day(Moment(int(group)))
