"""``rerank-serve credit``: granted, corrected, refunded."""

import click

from serve_app.cli.amounts import Dollars
from serve_app.cli.ledger_access import act, database_option, open_books
from serve_app.cli.reports import dollars, print_table, utc
from serve_app.domain.units import Credits, RequestId
from serve_app.ledger import accounts, credit_grants
from serve_app.ledger.database import reading


@click.group()
def credit() -> None:
    """What a tenant may spend."""


# A negative amount must reach the check of amounts, not the search for an option '-5'.
@credit.command("add", context_settings={"ignore_unknown_options": True})
@click.argument("tenant")
@click.argument("amount", metavar="DOLLARS", type=Dollars(negative=True))
@click.option("--reason", required=True, help="Kept with the grant.")
@click.option(
    "--idempotency-key", help="A second grant with it is not made: for payments told twice."
)
@click.option("--correction", is_flag=True, help="Take DOLLARS below zero back.")
@database_option
def add_credit(
    tenant: str,
    amount: Credits,
    reason: str,
    idempotency_key: str | None,
    correction: bool,  # noqa: FBT001 - click's way
    database_url: str | None,
) -> None:
    """Let TENANT spend another DOLLARS; below zero, with --correction, so much less."""
    if (amount < 0) != correction:
        raise click.ClickException(
            "an amount below zero needs --correction, and only that goes with it"
        )
    with open_books(database_url) as connection:
        found = accounts.find_tenant(connection, tenant)
        credit_grants.grant(
            connection, found.id, amount, reason, act(), idempotency_key=idempotency_key
        )
        left = accounts.find_tenant(connection, found.id).available
    click.echo(f"Tenant '{found.name}' may spend {dollars(left)}.")


@credit.command("refund", context_settings={"ignore_unknown_options": True})
@click.argument("request_id")
@click.argument("amount", metavar="[DOLLARS]", type=Dollars(), required=False)
@click.option("--reason", required=True, help="Kept with the refund.")
@click.option(
    "--idempotency-key", help="A second refund with it is not made: for a command that is repeated."
)
@database_option
def refund(
    request_id: str,
    amount: Credits | None,
    reason: str,
    idempotency_key: str | None,
    database_url: str | None,
) -> None:
    """Give DOLLARS of the charge for REQUEST_ID back, or all that is left of it."""
    with open_books(database_url) as connection:
        given = credit_grants.refund(
            connection,
            RequestId(request_id),
            amount,
            reason,
            act(),
            idempotency_key=idempotency_key,
        )
        tenant = accounts.find_tenant(connection, given.tenant)
    click.echo(
        f"{dollars(given.amount)} are refunded; "
        f"tenant '{tenant.name}' may spend {dollars(tenant.available)}."
    )


@credit.command("list")
@click.argument("tenant")
@database_option
def list_credit(tenant: str, database_url: str | None) -> None:
    """List what changed TENANT's credit, other than charges."""
    with open_books(database_url, reading) as connection:
        owner = accounts.find_tenant(connection, tenant)
        found = credit_grants.list_grants(connection, owner.id)
    print_table(
        ("Time", "Kind", "Amount", "Reason", "By", "Request", "Id"),
        (
            (
                utc(each.created_at),
                each.kind,
                dollars(each.amount),
                each.reason,
                each.who,
                each.request_id or "-",
                each.id,
            )
            for each in found
        ),
        frozenset({"Amount"}),
    )
    click.echo(f"Tenant '{owner.name}' may spend {dollars(owner.available)}.")
