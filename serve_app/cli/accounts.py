"""``rerank-serve tenants | usage | audit-log``: tenants, usage reports and the audit log.

Every command uses one transaction. Commands that only read do not delay requests.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import click

from serve_app.access import api_keys
from serve_app.cli.amounts import NONE, Dollars, OrNone, limit_facts, limit_options, setting_facts
from serve_app.cli.credit import credit
from serve_app.cli.keys import keys
from serve_app.cli.ledger_access import (
    DATABASE_TIMEOUT_S,
    audit_context,
    database_option,
    open_books,
    settings,
    tenant_id,
)
from serve_app.cli.reports import (
    moment,
    print_facts,
    print_table,
    print_usage,
    utc,
)
from serve_app.domain.clock import Clock
from serve_app.domain.formats import dollars
from serve_app.domain.model import WEIGHT_MAX, LimitChanges
from serve_app.domain.units import Credits
from serve_app.ledger.accounts import credit_grants, tenant_accounts, tenant_keys
from serve_app.ledger.db import audit_log
from serve_app.ledger.db.audit_log import AuditContext
from serve_app.ledger.db.engines import reading, transaction
from serve_app.ledger.db.schema import migrate
from serve_app.ledger.reports import usage

ENTRIES_PER_READ = 1_000

FIRST_SCOPES = {api_keys.SCOPE_RERANK, api_keys.SCOPE_MANAGE}
"""Scopes of the first key of a new database, which `make serve` prints."""


def bootstrap(database_url: str, clock: Clock, credit: Credits) -> str | None:
    """Update the schema, and add the tenant ``dev`` with an API key to an empty database.

    Returns the key, which cannot be shown again; ``None`` if a tenant exists.

    Raises: LedgerUnavailable.
    """
    migrate(database_url)
    key = api_keys.generate()
    now = AuditContext("bootstrap", clock.moment())
    with transaction(database_url, DATABASE_TIMEOUT_S) as connection:
        if tenant_accounts.list_tenants(connection, count_max=1):
            return None
        first = credit_grants.first_credit(credit, Credits(0))
        tenant = credit_grants.open_account(connection, "dev", first, now)
        new = tenant_keys.NewKey(
            key.key_id, key.secret_sha256, "first key", FIRST_SCOPES, None, None
        )
        tenant_keys.create_key(connection, tenant.id, new, now)
    return key.reveal()


@click.group()
def tenants() -> None:
    """Manage tenants, the customers that are billed."""


@tenants.command("add")
@click.argument("name")
@click.option(
    "--credit",
    "amount",
    type=Dollars(zero=True),
    help="Initial credit in dollars.  [default: RERANK_FREE_CREDIT_MICRO_DOLLARS]",
)
@database_option
def add_tenant(name: str, amount: Credits | None, database_url: str | None) -> None:
    """Add a tenant named NAME."""
    free = Credits(0 if amount is not None else settings().free_credit_micro_dollars)
    with open_books(database_url) as connection:
        first = credit_grants.first_credit(amount, free)
        tenant = credit_grants.open_account(connection, name, first, audit_context())
    click.echo(f"Tenant '{tenant.name}' ({tenant.id}) has {dollars(tenant.available)} available.")


@tenants.command("list")
@database_option
def list_tenants(database_url: str | None) -> None:
    """List tenants and their available credit."""
    with open_books(database_url, reading) as connection:
        found = tenant_accounts.list_tenants(connection)
    print_table(
        ("Tenant", "Id", "Available", "Created"),
        ((each.name, each.id, dollars(each.available), utc(each.created_at)) for each in found),
    )


@tenants.command("show")
@click.argument("tenant")
@database_option
def show_tenant(tenant: str, database_url: str | None) -> None:
    """Show the credit, weight, limits and alerts of TENANT."""
    with open_books(database_url, reading) as connection:
        found = tenant_accounts.find_tenant(connection, tenant)
    print_facts(
        {
            "Tenant": found.name,
            "Id": found.id,
            "Created": utc(found.created_at),
            "Available": dollars(found.available),
            **setting_facts(found.settings),
            "Alerts below": ", ".join(dollars(each) for each in found.alerts_below) or NONE,
        }
        | limit_facts(found.limits)
    )


@tenants.command("set-limits")
@click.argument("tenant")
@limit_options
@click.option(
    "--alert-below",
    "alerts",
    multiple=True,
    type=OrNone(Dollars()),
    help=f"Alert below this credit; repeatable. Replaces all alerts; '{NONE}' removes them.",
)
@database_option
def set_tenant_limits(
    tenant: str,
    limits: LimitChanges,
    alerts: Sequence[Credits | str],
    database_url: str | None,
) -> None:
    """Set or remove limits that all keys of TENANT share. Other limits are unchanged."""
    if not limits and not alerts:
        raise click.ClickException("specify at least one limit; --help lists them")
    below = [each for each in alerts if not isinstance(each, str)] if alerts else None
    with open_books(database_url) as connection:
        changed = tenant_accounts.change_tenant(connection, tenant, limits, below, audit_context())
    click.echo(f"Updated limits of tenant '{changed.name}'. Gateways apply them within 5 seconds.")


@tenants.command("set-weight")
@click.argument("tenant")
@click.argument("weight", type=click.IntRange(1, WEIGHT_MAX))
@database_option
def set_tenant_weight(tenant: str, weight: int, database_url: str | None) -> None:
    """Set the share of TENANT in busy scorers, relative to other tenants. The default is 1."""
    with open_books(database_url) as connection:
        changed = tenant_accounts.change_tenant(
            connection, tenant, {}, None, audit_context(), settings={"weight": weight}
        )
    click.echo(
        f"Tenant '{changed.name}' has weight {weight:,}. Gateways apply it within 5 seconds."
    )


@click.command("usage")
@click.option("--tenant", help="Only this tenant, by id or name.")
@click.option("--since", type=click.DateTime(), help="Start time, inclusive (UTC).")
@click.option("--until", type=click.DateTime(), help="End time, exclusive (UTC).")
@click.option(
    "--by",
    type=click.Choice([each.value for each in usage.Grouping]),
    default=usage.Grouping.DAY.value,
    show_default=True,
)
@click.option("--json", "form", flag_value="json", help="Print JSON.")
@click.option("--csv", "form", flag_value="csv", help="Print CSV.")
@database_option
def show_usage(
    tenant: str | None,
    since: datetime | None,
    until: datetime | None,
    by: str,
    form: str | None,
    database_url: str | None,
) -> None:
    """Report computed and charged usage."""
    grouping = usage.Grouping(by)
    with open_books(database_url, reading) as connection:
        which = usage.UsageFilter(tenant_id(connection, tenant), moment(since), moment(until))
        rows = usage.usage(connection, which, grouping)
        if grouping is usage.Grouping.TENANT:
            names = {str(each.id): each.name for each in tenant_accounts.list_tenants(connection)}
            named = (replace(row, group=(names[row.group[0]],)) for row in rows)
            rows = sorted(named, key=lambda row: row.group)
    print_usage(rows, grouping, form)


@click.command("audit-log")
@click.option("--tenant", help="Only changes to this tenant, by id or name.")
@database_option
def show_audit_log(tenant: str | None, database_url: str | None) -> None:
    """List all grants and all changes to tenants and keys, oldest first."""
    found: list[audit_log.AuditEntry] = []
    with open_books(database_url, reading) as connection:
        of = tenant_id(connection, tenant)
        names = {each.id: each.name for each in tenant_accounts.list_tenants(connection)}
        while page := audit_log.read_entries(
            connection, of, after=found[-1].id if found else 0, count_max=ENTRIES_PER_READ
        ):
            found += page
    print_table(
        ("Id", "Time", "By", "Action", "Tenant", "Subject", "Details"),
        (
            (
                str(each.id),
                utc(each.at),
                each.who,
                each.action,
                names[each.tenant] if each.tenant else "-",
                each.subject,
                json.dumps(each.details),
            )
            for each in found
        ),
    )


COMMANDS: list[click.Command] = [tenants, keys, credit, show_usage, show_audit_log]
