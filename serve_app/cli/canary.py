"""``rerank-serve canary``: compare a canary with the live revision of its model."""

import json
from dataclasses import asdict

import click

from serve_app.cli.ledger_access import CLOCK, database_option, open_books, reading_long
from serve_app.cli.reports import print_table, utc
from serve_app.domain.units import ModelId, Moment
from serve_app.ledger.db.comparisons import KEPT_DAYS
from serve_app.ledger.money.calendar import MILLISECONDS_PER_DAY
from serve_app.ledger.reports.canary_report import (
    Agreement,
    CanaryReport,
    Requests,
    Shadowed,
    canary_report,
)


@click.group()
def canary() -> None:
    """Compare a model's canary with its live revision."""


@canary.command("report")
@click.argument("model")
@click.option(
    "--days",
    type=click.IntRange(1, KEPT_DAYS),
    default=KEPT_DAYS,
    show_default=True,
    help="Report on so many days until now.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@database_option
def report(model: str, days: int, as_json: bool, database_url: str | None) -> None:  # noqa: FBT001 - click's way
    """Compare the revisions of MODEL, the id of a model.

    The first tables compare shadows: requests that the live revision answered and the canary scored
    once more. The last table counts the requests that each revision scored for clients.
    """
    since = Moment(CLOCK.moment() - days * MILLISECONDS_PER_DAY)
    with open_books(database_url, reading_long) as connection:
        found = canary_report(connection, ModelId(model), since)
    if as_json:
        click.echo(json.dumps(asdict(found), indent=2))
        return
    if not found.shadows and not found.requests:
        raise click.ClickException(f"There is no request of the model '{model}' in this time.")
    _print(found)


def _print(found: CanaryReport) -> None:
    for each in found.shadows:
        _print_shadows(each)
    names = ("Requests", "Errors", "Tokens")
    print_table(
        ("Revision", *names), [_request_cells(each) for each in found.requests], frozenset(names)
    )


def _print_shadows(found: Shadowed) -> None:
    live, canary = found.live, found.canary
    period = f"{utc(found.first_at)} to {utc(found.last_at)}"
    click.echo(f"Shadows of '{live.revision}' by '{canary.revision}': {found.jobs:,}, {period}")
    sides = ("Live", "Canary")
    costs = [
        ("Run time p50, ms", *(f"{1_000 * each.run_s_p50:,.1f}" for each in (live, canary))),
        ("Run time p99, ms", *(f"{1_000 * each.run_s_p99:,.1f}" for each in (live, canary))),
        ("Tokens", *(f"{each.tokens:,}" for each in (live, canary))),
    ]
    print_table(("", *sides), costs, frozenset(sides))
    names = ("Jobs", "Mean", "p10")
    print_table(
        ("Agreement", *names),
        [
            ("Overlap of the best 10", *_agreement_cells(found.overlap_at_10)),
            ("Kendall's tau", *_agreement_cells(found.kendall_tau)),
        ],
        frozenset(names),
    )


def _agreement_cells(found: Agreement | None) -> tuple[str, str, str]:
    if found is None:
        return "0", "-", "-"
    return f"{found.jobs:,}", f"{found.mean:.3f}", f"{found.p10:.3f}"


def _request_cells(found: Requests) -> tuple[str, ...]:
    numbers = (found.requests, found.errors, found.tokens)
    return found.revision or "(not recorded)", *(f"{number:,}" for number in numbers)
