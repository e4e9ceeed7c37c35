"""``rerank-serve credit``: grants, corrections and refunds."""

import click

from serve_app.cli.amounts import Dollars
from serve_app.cli.ledger_access import audit_context, database_option, open_books
from serve_app.cli.reports import print_table, utc
from serve_app.domain.formats import dollars
from serve_app.domain.units import Credits, RequestId
from serve_app.ledger.accounts import credit_grants, tenant_accounts
from serve_app.ledger.db.engines import reading


@click.group()
def credit() -> None:
    """Manage the credit of tenants."""


# A negative amount must not be read as an option '-5'.
@credit.command("add", context_settings={"ignore_unknown_options": True})
@click.argument("tenant")
@click.argument("amount", metavar="DOLLARS", type=Dollars(negative=True))
@click.option("--reason", required=True, help="Stored with the grant.")
@click.option(
    "--idempotency-key", help="Grant only once per key, in case a payment is reported twice."
)
@click.option("--correction", is_flag=True, help="Allow negative DOLLARS, which reduce the credit.")
@database_option
def add_credit(
    tenant: str,
    amount: Credits,
    reason: str,
    idempotency_key: str | None,
    correction: bool,  # noqa: FBT001 - click's way
    database_url: str | None,
) -> None:
    """Add DOLLARS to the credit of TENANT. With --correction, DOLLARS is negative."""
    if (amount < 0) != correction:
        raise click.ClickException(
            "a negative amount needs --correction, which accepts no other amount"
        )
    with open_books(database_url) as connection:
        found = tenant_accounts.find_tenant(connection, tenant)
        credit_grants.grant(
            connection, found.id, amount, reason, audit_context(), idempotency_key=idempotency_key
        )
        left = tenant_accounts.find_tenant(connection, found.id).available
    click.echo(f"Tenant '{found.name}' has {dollars(left)} available.")


@credit.command("refund", context_settings={"ignore_unknown_options": True})
@click.argument("request_id")
@click.argument("amount", metavar="[DOLLARS]", type=Dollars(), required=False)
@click.option("--reason", required=True, help="Stored with the refund.")
@click.option(
    "--idempotency-key", help="Refund only once per key, in case the command is repeated."
)
@database_option
def refund(
    request_id: str,
    amount: Credits | None,
    reason: str,
    idempotency_key: str | None,
    database_url: str | None,
) -> None:
    """Refund DOLLARS of the charge for REQUEST_ID, by default the part not yet refunded."""
    with open_books(database_url) as connection:
        given = credit_grants.refund(
            connection,
            RequestId(request_id),
            amount,
            reason,
            audit_context(),
            idempotency_key=idempotency_key,
        )
        tenant = tenant_accounts.find_tenant(connection, given.tenant)
    click.echo(
        f"Refunded {dollars(given.amount)}. "
        f"Tenant '{tenant.name}' has {dollars(tenant.available)} available."
    )


@credit.command("list")
@click.argument("tenant")
@database_option
def list_credit(tenant: str, database_url: str | None) -> None:
    """List the grants, corrections and refunds of TENANT."""
    with open_books(database_url, reading) as connection:
        owner = tenant_accounts.find_tenant(connection, tenant)
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
    click.echo(f"Tenant '{owner.name}' has {dollars(owner.available)} available.")
