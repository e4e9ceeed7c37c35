"""``rerank-serve canary``: compare, promote or abort a canary."""

import functools
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from serve_app.cli.ledger_access import CLOCK, database_option, open_books, reading_long
from serve_app.cli.reports import print_table, utc
from serve_app.cli.up_config import read_config
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
from serve_app.settings.live import UNUSED_AFTER_S

if TYPE_CHECKING:
    from serve_app.deployments.canary_edit import Edited


@click.group()
def canary() -> None:
    """Compare a model's canary with its live revision, promote it, or abort it."""


@canary.command("report")
@click.argument("model")
@click.option(
    "--days",
    type=click.IntRange(1, KEPT_DAYS),
    default=KEPT_DAYS,
    show_default=True,
    help="Length of the reported period, which ends now.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@database_option
def report(model: str, days: int, as_json: bool, database_url: str | None) -> None:  # noqa: FBT001 - click's way
    """Compare the revisions of MODEL, the id of a model.

    The first tables compare shadows: requests that the live revision answered and the canary scored
    once more. The last table counts the clients' requests to each revision.
    """
    since = Moment(CLOCK.moment() - days * MILLISECONDS_PER_DAY)
    with open_books(database_url, reading_long) as connection:
        found = canary_report(connection, ModelId(model), since)
    if as_json:
        click.echo(json.dumps(asdict(found), indent=2))
        return
    if not found.shadows and not found.requests:
        raise click.ClickException(f"There is no request of the model '{model}' in this period.")
    _print(found)


def _edit_options(command: Callable[..., None]) -> Callable[..., None]:
    options = (
        click.argument("model"),
        click.option(
            "--config",
            "path",
            required=True,
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="The Serve config file, which is changed.",
        ),
        click.option(
            "--address",
            default="http://127.0.0.1:8265",
            envvar="RAY_DASHBOARD_ADDRESS",
            show_default=True,
            help="URL of Ray's dashboard.",
        ),
        click.option(
            "--deploy/--no-deploy", default=True, help="Deploy the file, as `serve deploy` does."
        ),
    )
    return functools.reduce(lambda done, option: option(done), reversed(options), command)


@canary.command("promote")
@_edit_options
def promote(model: str, path: Path, address: str, deploy: bool) -> None:  # noqa: FBT001 - click's way
    """Make the canary of MODEL its live revision, for all tenants.

    No replica is replaced. To undo it, deploy the previous file.
    """
    from serve_app.deployments.canary_edit import promoted  # noqa: PLC0415 - imports ray

    unused = _edit(path, promoted, model)
    click.echo(f"The canary of '{model}' is now its live revision in {path}.")
    _deploy(path, address if deploy else None, unused)


@canary.command("abort")
@_edit_options
def abort(model: str, path: Path, address: str, deploy: bool) -> None:  # noqa: FBT001 - click's way
    """Remove the canary of MODEL, so that the live revision scores all requests again.

    No replica is replaced.
    """
    from serve_app.deployments.canary_edit import aborted  # noqa: PLC0415 - imports ray

    unused = _edit(path, aborted, model)
    click.echo(f"The model '{model}' no longer has a canary in {path}.")
    _deploy(path, address if deploy else None, unused)


def _edit(path: Path, edit: Callable[[str, str], "Edited"], model: str) -> str:
    """Change the file, and return the application that becomes unused."""
    from serve_app.deployments.serve_config import ConfigError, settings_in  # noqa: PLC0415 - imports ray

    read_config(path, None)  # Refuses a file with other errors.
    try:
        edited = edit(path.read_text(encoding="utf-8"), model)
        settings_in(edited.content)
        path.write_text(edited.text, encoding="utf-8")
    except (ConfigError, OSError) as error:
        raise click.ClickException(str(error)) from None
    return edited.unused


def _deploy(path: Path, address: str | None, unused: str) -> None:
    then = f"run `serve deploy {path}`"
    if address is None:
        click.echo(f"To deploy it, {then}.")
    else:
        from serve_app.deployments.deploy import DeployError, deploy_file  # noqa: PLC0415 - imports ray

        try:
            deploy_file(path, address)
        except DeployError as error:
            raise click.ClickException(f"It is not deployed: {error}. To do so, {then}.") from None
        click.echo("It is deployed, and takes effect within seconds.")
    click.echo(
        f"The application '{unused}' has no more requests {UNUSED_AFTER_S / 60:g} minutes later: "
        "remove it from the file then, and deploy the file again."
    )


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
