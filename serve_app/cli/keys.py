"""``rerank-serve keys``: create, show, name, limit, rotate and revoke API keys."""

from collections.abc import Sequence

import click

from serve_app.access import api_keys
from serve_app.cli.amounts import limit_facts, limit_options
from serve_app.cli.ledger_access import audit_context, database_option, open_books, tenant_id
from serve_app.cli.reports import print_facts, print_table, utc
from serve_app.domain.model import LimitChanges, RateLimits
from serve_app.domain.units import KeyId, ModelId, Moment, Seconds
from serve_app.ledger.accounts import tenant_accounts, tenant_keys
from serve_app.ledger.db.engines import reading
from serve_app.ledger.money.calendar import MILLISECONDS_PER_DAY
from serve_app.protocols.admin import EXPIRES_IN_DAYS_MAX

SHOWN_ONCE = "Save this key: only its digest is stored, so it cannot be shown again."
SECONDS_PER_HOUR = 3_600
OVERLAP_HOURS = 24.0
COLUMNS = (
    *("Key", "Tenant", "Label", "Scopes", "Models"),
    *("Created", "Last used", "Expires", "Revoked"),
)


@click.group()
def keys() -> None:
    """Manage API keys."""


@keys.command("create")
@click.argument("tenant")
@click.option("--label", default="key", show_default=True, help="Name of the key in lists.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    default=(api_keys.SCOPE_RERANK,),
    show_default=True,
    type=click.Choice(api_keys.SCOPES),
    help="Scope of the key; repeatable.",
)
@click.option("--model", "models", multiple=True, help="Allow only this model; repeatable.")
@click.option("--expires-in-days", type=click.IntRange(1, EXPIRES_IN_DAYS_MAX))
@limit_options
@database_option
def create_key(  # noqa: PLR0913 - one for each option
    *,
    tenant: str,
    label: str,
    scopes: Sequence[str],
    models: Sequence[str],
    expires_in_days: int | None,
    limits: LimitChanges,
    database_url: str | None,
) -> None:
    """Create an API key of TENANT and print it. It cannot be shown again."""
    key = api_keys.generate()
    now = audit_context()
    new = tenant_keys.NewKey(
        key.key_id,
        key.secret_sha256,
        label,
        set(scopes),
        {ModelId(model) for model in models} or None,
        Moment(now.now + expires_in_days * MILLISECONDS_PER_DAY) if expires_in_days else None,
        RateLimits(**limits),
    )
    with open_books(database_url) as connection:
        owner = tenant_accounts.find_tenant(connection, tenant)
        tenant_keys.create_key(connection, owner.id, new, now)
    click.echo(key.reveal())
    click.echo(SHOWN_ONCE, err=True)


@keys.command("show")
@click.argument("key_id")
@database_option
def show_key(key_id: str, database_url: str | None) -> None:
    """Show the permissions and limits of the key with the public id KEY_ID."""
    with open_books(database_url, reading) as connection:
        found = tenant_keys.get_key(connection, KeyId(key_id))
    facts = dict(zip(COLUMNS, _cells(found), strict=True))
    print_facts(facts | limit_facts(found.stored.caller.key_limits))


@keys.command("list")
@click.option("--tenant", help="Only keys of this tenant, by id or name.")
@database_option
def list_keys(tenant: str | None, database_url: str | None) -> None:
    """List keys with their public ids."""
    with open_books(database_url, reading) as connection:
        found = tenant_keys.list_keys(connection, tenant_id(connection, tenant))
    print_table(COLUMNS, map(_cells, found))


def _cells(key: tenant_keys.Key) -> tuple[str, ...]:
    stored = key.stored
    return (
        stored.caller.key_id,
        key.tenant_name,
        key.label,
        ", ".join(sorted(stored.caller.scopes)),
        ", ".join(sorted(stored.caller.models or {"all"})),
        utc(key.created_at),
        utc(key.last_used_at),
        utc(stored.expires_at),
        utc(stored.revoked_at),
    )


@keys.command("set-limits")
@click.argument("key_id")
@limit_options
@database_option
def set_key_limits(key_id: str, limits: LimitChanges, database_url: str | None) -> None:
    """Set or remove limits of the key with the public id KEY_ID. Other limits are unchanged."""
    if not limits:
        raise click.ClickException("specify at least one limit; --help lists them")
    with open_books(database_url) as connection:
        tenant_keys.change_key_limits(connection, KeyId(key_id), limits, audit_context())
    click.echo(f"Updated limits of key {key_id}. Gateways apply them within 5 seconds.")


@keys.command("set-label")
@click.argument("key_id")
@click.argument("label")
@database_option
def set_key_label(key_id: str, label: str, database_url: str | None) -> None:
    """Change the label of the key with the public id KEY_ID to LABEL."""
    with open_books(database_url) as connection:
        tenant_keys.set_key_label(connection, KeyId(key_id), label, audit_context())
    click.echo(f"Key {key_id} now has the label '{label}'.")


@keys.command("rotate")
@click.argument("key_id")
@click.option(
    "--overlap-hours",
    type=float,
    default=OVERLAP_HOURS,
    show_default=True,
    help="How long the old key remains valid.",
)
@database_option
def rotate_key(key_id: str, overlap_hours: float, database_url: str | None) -> None:
    """Replace KEY_ID by a new key with the same permissions and limits, and print it.

    The new key cannot be shown again.
    """
    key = api_keys.generate()
    overlap_s = Seconds(overlap_hours * SECONDS_PER_HOUR)
    with open_books(database_url) as connection:
        new = (key.key_id, key.secret_sha256)
        tenant_keys.rotate_key(connection, KeyId(key_id), new, overlap_s, audit_context())
        end = tenant_keys.get_key(connection, KeyId(key_id)).stored.expires_at
    click.echo(key.reveal())
    click.echo(SHOWN_ONCE, err=True)
    click.echo(f"Key {key_id} remains valid until {utc(end)} UTC.", err=True)


@keys.command("revoke")
@click.argument("key_id")
@database_option
def revoke_key(key_id: str, database_url: str | None) -> None:
    """Revoke the key with the public id KEY_ID."""
    with open_books(database_url) as connection:
        tenant_keys.revoke_key(connection, KeyId(key_id), audit_context())
    click.echo(f"Revoked key {key_id}. Gateways reject it within 5 seconds.")
