"""``rerank-serve tenants | keys | credit | usage``: who may spend what, and who did.

Every command brings the schema up to date, does its work in one transaction, and ends with one
clear line and exit code 1 when it cannot. A command that only reads holds up no request. Money is
typed and shown in dollars, times in UTC.
"""

import getpass
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime

import click

from serve_app.access import api_keys
from serve_app.cli.reports import Dollars, dollars, moment, print_table, print_usage, utc
from serve_app.domain.clock import Clock, SystemClock
from serve_app.domain.errors import LedgerUnavailable
from serve_app.domain.units import (
    Credits,
    KeyId,
    ModelId,
    Moment,
    Seconds,
    TenantId,
)
from serve_app.ledger import accounts, credit_grants, tenant_keys, usage
from serve_app.ledger.admin_acts import Act
from serve_app.ledger.database import Connection, reading, transaction
from serve_app.ledger.schema import migrate
from serve_app.settings import Settings

DATABASE_TIMEOUT_S = Seconds(10.0)
EXPIRES_IN_DAYS_MAX = 36_500
MILLISECONDS_PER_DAY = 86_400_000
CLOCK = SystemClock()


def bootstrap(database_url: str, clock: Clock, credit: Credits) -> str | None:
    """Bring the schema up to date, and give an empty database a tenant that can send requests.

    Returns:
        The whole API key of the new tenant ``dev``, which is not shown again; ``None`` if there
        was a tenant already.

    Raises:
        LedgerUnavailable: The database did not answer.
    """
    migrate(database_url)
    key = api_keys.generate()
    act = Act("bootstrap", clock.moment())
    with transaction(database_url, DATABASE_TIMEOUT_S) as connection:
        if accounts.list_tenants(connection):
            return None
        tenant = accounts.create_tenant(connection, "dev", act)
        credit_grants.grant(connection, tenant.id, credit, "first credit", act)
        new = tenant_keys.NewKey(
            key.key_id, key.secret_sha256, "first key", {api_keys.SCOPE_RERANK}, None, None
        )
        tenant_keys.create_key(connection, tenant.id, new, act)
    return key.reveal()


@click.group()
def tenants() -> None:
    """Who is billed."""


@click.group()
def keys() -> None:
    """API keys of a tenant."""


@click.group()
def credit() -> None:
    """What a tenant may spend."""


def _database_option(command: Callable[..., None]) -> Callable[..., None]:
    return click.option(
        "--database-url",
        envvar="RERANK_DATABASE_URL",
        help="SQLAlchemy URL of the ledger.  [default: what the settings say]",
    )(command)


@tenants.command("add")
@click.argument("name")
@click.option("--credit", "amount", type=Dollars(), help="First credit, in dollars.")
@_database_option
def add_tenant(name: str, amount: Credits | None, database_url: str | None) -> None:
    """Add a tenant called NAME."""
    act = _act()
    with _books(database_url) as connection:
        tenant = accounts.create_tenant(connection, name, act)
        if amount is not None:
            credit_grants.grant(connection, tenant.id, amount, "first credit", act)
    click.echo(f"Tenant '{name}' ({tenant.id}) may spend {dollars(amount or 0)}.")


@tenants.command("list")
@_database_option
def list_tenants(database_url: str | None) -> None:
    """List the tenants and what each may still spend."""
    with _books(database_url, reading) as connection:
        found = accounts.list_tenants(connection)
    print_table(
        ("Tenant", "Id", "Available", "Created"),
        ((each.name, each.id, dollars(each.available), utc(each.created_at)) for each in found),
    )


@keys.command("create")
@click.argument("tenant")
@click.option("--label", default="key", show_default=True, help="What to know it by.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    default=(api_keys.SCOPE_RERANK,),
    show_default=True,
    type=click.Choice(api_keys.SCOPES),
    help="What it opens; may be repeated.",
)
@click.option("--model", "models", multiple=True, help="Allow only this model; may be repeated.")
@click.option("--expires-in-days", type=click.IntRange(1, EXPIRES_IN_DAYS_MAX))
@_database_option
def create_key(
    tenant: str,
    label: str,
    scopes: Sequence[str],
    models: Sequence[str],
    expires_in_days: int | None,
    database_url: str | None,
) -> None:
    """Create an API key of TENANT and print it, once."""
    key = api_keys.generate()
    act = _act()
    expires_at = (
        Moment(act.now + expires_in_days * MILLISECONDS_PER_DAY) if expires_in_days else None
    )
    allowed = {ModelId(model) for model in models} or None
    new = tenant_keys.NewKey(key.key_id, key.secret_sha256, label, set(scopes), allowed, expires_at)
    with _books(database_url) as connection:
        owner = accounts.find_tenant(connection, tenant)
        tenant_keys.create_key(connection, owner.id, new, act)
    click.echo(key.reveal())
    click.echo("Keep it: only a digest is stored, so it cannot be shown again.", err=True)


@keys.command("list")
@click.option("--tenant", help="Only the keys of this tenant.")
@_database_option
def list_keys(tenant: str | None, database_url: str | None) -> None:
    """List keys by their public ids."""
    with _books(database_url, reading) as connection:
        found = tenant_keys.list_keys(connection, _tenant_id(connection, tenant))
    print_table(
        ("Key", "Tenant", "Label", "Scopes", "Models", "Created", "Expires", "Revoked"),
        (
            (
                each.stored.caller.key_id,
                each.tenant_name,
                each.label,
                ", ".join(sorted(each.stored.caller.scopes)),
                ", ".join(sorted(each.stored.caller.models or {"all"})),
                utc(each.created_at),
                utc(each.stored.expires_at),
                utc(each.stored.revoked_at),
            )
            for each in found
        ),
    )


@keys.command("revoke")
@click.argument("key_id")
@_database_option
def revoke_key(key_id: str, database_url: str | None) -> None:
    """Make the key with the public id KEY_ID useless."""
    with _books(database_url) as connection:
        tenant_keys.revoke_key(connection, KeyId(key_id), _act())
    click.echo(f"Key {key_id} is revoked; gateways forget it within seconds.")


# A negative amount must reach the check of amounts, not the search for an option '-5'.
@credit.command("add", context_settings={"ignore_unknown_options": True})
@click.argument("tenant")
@click.argument("amount", metavar="DOLLARS", type=Dollars())
@click.option("--reason", required=True, help="Kept with the grant.")
@_database_option
def add_credit(tenant: str, amount: Credits, reason: str, database_url: str | None) -> None:
    """Let TENANT spend another DOLLARS."""
    with _books(database_url) as connection:
        found = accounts.find_tenant(connection, tenant)
        credit_grants.grant(connection, found.id, amount, reason, _act())
        left = accounts.find_tenant(connection, found.id).available
    click.echo(f"Tenant '{found.name}' may spend {dollars(left)}.")


@click.command("usage")
@click.option("--tenant", help="Only this tenant.")
@click.option("--since", type=click.DateTime(), help="From this time on (UTC).")
@click.option("--until", type=click.DateTime(), help="Before this time (UTC).")
@click.option(
    "--by",
    type=click.Choice([each.value for each in usage.Grouping]),
    default=usage.Grouping.DAY.value,
    show_default=True,
)
@click.option("--json", "form", flag_value="json", help="Print JSON.")
@click.option("--csv", "form", flag_value="csv", help="Print CSV.")
@_database_option
def show_usage(
    tenant: str | None,
    since: datetime | None,
    until: datetime | None,
    by: str,
    form: str | None,
    database_url: str | None,
) -> None:
    """Show what was computed and charged."""
    grouping = usage.Grouping(by)
    with _books(database_url, reading) as connection:
        which = usage.UsageFilter(_tenant_id(connection, tenant), moment(since), moment(until))
        rows = usage.usage(connection, which, grouping)
    print_usage(rows, grouping, form)


COMMANDS: list[click.Command] = [tenants, keys, credit, show_usage]
"""What `serve_app.cli` attaches to the main command."""


@contextmanager
def _books(
    database_url: str | None,
    begin: Callable[[str, Seconds], AbstractContextManager[Connection]] = transaction,
) -> Iterator[Connection]:
    """A transaction on an up-to-date schema; what goes wrong becomes one line."""
    try:
        url = database_url or Settings().resolved_database_url
        migrate(url, DATABASE_TIMEOUT_S)
    except LedgerUnavailable as error:
        raise click.ClickException(f"the database did not answer: {error.reason}") from None
    except (ValueError, OSError) as error:
        raise click.ClickException(" ".join(str(error).split())) from None
    try:
        with begin(url, DATABASE_TIMEOUT_S) as connection:
            yield connection
    except LedgerUnavailable as error:
        raise click.ClickException(f"the database did not answer: {error.reason}") from None
    except accounts.AccountProblem as error:
        raise click.ClickException(str(error)) from None


def _tenant_id(connection: Connection, name: str | None) -> TenantId | None:
    return None if name is None else accounts.find_tenant(connection, name).id


def _act() -> Act:
    try:
        who = getpass.getuser()
    except (KeyError, OSError):
        who = "unknown"  # A container may run as a user id without a name.
    return Act(who, CLOCK.moment())
