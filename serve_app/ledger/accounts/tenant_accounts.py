"""Tenant accounts: names, limits, alerts and weights."""

import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy import (
    Connection,
    RowMapping,
    Table,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from serve_app.domain.model import (
    DEFAULT_SETTINGS,
    TENANT_SETTINGS,
    UNLIMITED,
    LimitChanges,
    RateLimits,
    SettingChanges,
    TenantSettings,
)
from serve_app.domain.units import Credits, Moment, TenantId
from serve_app.ledger.accounts import tenant_names
from serve_app.ledger.db.advisory_locks import AdvisoryLock, lock
from serve_app.ledger.db.audit_log import AuditContext, record
from serve_app.ledger.db.tables import tenants
from serve_app.ledger.posting.sql import lock_accounts

ALERTS_BELOW = (Credits(5_000_000), Credits(1_000_000))
"""Low-credit alert thresholds of a new tenant: $5 and $1."""

AMOUNT_MAX = Credits(10**15)
"""Largest grant, limit or threshold: a billion dollars. Sums stay far below 64 bits."""


class AccountProblem(Exception):
    """A rejected account operation; the message is one line for the operator."""


class UnknownAccount(AccountProblem):
    """A tenant, key or charge does not exist."""

    def __init__(self, what: str) -> None:
        super().__init__(f"there is no {what}")
        self.what = what


class AccountConflict(AccountProblem):
    """A name is taken, a key is already rotated, or an idempotency key is already used."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """The unit of billing: an account with credit and limits."""

    id: TenantId
    name: str
    available: Credits
    created_at: Moment
    limits: RateLimits = UNLIMITED
    alerts_below: tuple[Credits, ...] = ALERTS_BELOW
    settings: TenantSettings = DEFAULT_SETTINGS


def create_tenant(connection: Connection, name: str, audit: AuditContext) -> Tenant:
    """Create a tenant without credit under the normalized form of ``name``.

    Raises:
        AccountConflict: Another tenant has this name or a look-alike.
        AccountProblem: `tenant_names.is_fit` rejects the name.
    """
    name = tenant_names.normalized(name)
    if not tenant_names.is_fit(name):
        raise AccountProblem(
            f"the name must have 1 to {tenant_names.NAME_CHARACTERS_MAX} characters; control, "
            "format (zero-width, bidirectional), private-use and unassigned characters are not "
            "allowed"
        )
    _refuse_look_alikes(connection, name)
    tenant = Tenant(TenantId(f"tn_{secrets.token_hex(8)}"), name, Credits(0), audit.now)
    row = {
        "id": tenant.id,
        "name": name,
        "available": 0,
        "created_at": audit.now,
        "alerts_below": list(ALERTS_BELOW),
    }
    try:
        with connection.begin_nested():
            connection.execute(insert(tenants), row)
    except IntegrityError:
        raise AccountConflict(f"a tenant named '{name}' already exists") from None
    record(connection, audit, "tenant.create", tenant.id, tenant.id, {"name": name})
    return tenant


def list_tenants(
    connection: Connection, *, after: str = "", count_max: int | None = None
) -> list[Tenant]:
    query = select(tenants).where(tenants.c.name > after).order_by(tenants.c.name)
    return [_tenant(row) for row in connection.execute(query.limit(count_max)).mappings()]


def find_tenant(connection: Connection, name: str) -> Tenant:
    """Return the tenant with this id or name, normalized or not. Raises: AccountProblem."""
    names = (name, tenant_names.normalized(name))  # Older names are not normalized.
    query = select(tenants).where(or_(tenants.c.id == name, tenants.c.name.in_(names)))
    # An id takes precedence over an equal name, because people choose names.
    ranked = query.order_by(tenants.c.id != name, tenants.c.name != name)
    rows = connection.execute(ranked).mappings().all()
    if not rows:
        raise UnknownAccount(f"tenant '{name}'")
    return _tenant(rows[0])


def change_tenant(
    connection: Connection,
    name: str,
    limits: LimitChanges,
    below: Sequence[Credits] | None,
    audit: AuditContext,
    *,
    settings: SettingChanges | None = None,
) -> Tenant:
    """Change the given limits and settings, and the alerts unless ``below`` is ``None``.

    Concurrent changes of different limits do not overwrite each other. Raises: AccountProblem.
    """
    tenant = find_tenant(connection, name).id
    lock_accounts(connection, {tenant})
    if limits:
        known = find_tenant(connection, tenant).limits
        set_tenant_limits(connection, tenant, replace(known, **limits), audit)
    if below is not None:
        set_alerts(connection, tenant, below, audit)
    if settings:
        change_settings(connection, tenant, settings, audit)
    return find_tenant(connection, tenant)


def set_tenant_limits(
    connection: Connection, tenant: TenantId, limits: RateLimits, audit: AuditContext
) -> None:
    check_limits(limits)
    change(connection, tenants, tenant, asdict(limits))
    record(connection, audit, "tenant.limits", tenant, tenant, asdict(limits))


def set_alerts(
    connection: Connection, tenant: TenantId, below: Sequence[Credits], audit: AuditContext
) -> None:
    if any(not 0 < each <= AMOUNT_MAX for each in below) or len(below) > 10:
        raise AccountProblem("there can be at most 10 alert amounts, each above zero")
    amounts = sorted(set(below), reverse=True)
    change(connection, tenants, tenant, {"alerts_below": amounts})
    record(connection, audit, "tenant.alerts", tenant, tenant, {"below": amounts})


def change_settings(
    connection: Connection, tenant: TenantId, changes: SettingChanges, audit: AuditContext
) -> None:
    """Change the given settings; gateways apply them within seconds. Raises: AccountProblem."""
    known = find_tenant(connection, tenant).settings
    try:
        settings = asdict(replace(known, **changes))
    except ValueError as error:
        raise AccountProblem(str(error)) from None
    change(connection, tenants, tenant, settings)
    for name in changes:
        record(connection, audit, f"tenant.{name}", tenant, tenant, {name: settings[name]})


def _refuse_look_alikes(connection: Connection, name: str) -> None:
    """Raise AccountConflict for a look-alike. All names are compared, because they are few.

    The lock excludes concurrent creations until the end of the transaction.
    """
    lock(connection, AdvisoryLock.TENANT_NAMES)
    keys = tenant_names.lookalike_keys(name)
    for known in connection.scalars(select(tenants.c.name)):
        plain = tenant_names.normalized(known)
        if plain == name:
            raise AccountConflict(f"a tenant named '{known}' already exists")
        if not keys.isdisjoint(tenant_names.lookalike_keys(plain)):
            raise AccountConflict(f"the name '{name}' looks like that of the tenant '{known}'")


def change(connection: Connection, table: Table, row_id: str, values: dict[str, Any]) -> None:
    done = connection.execute(update(table).where(table.c.id == row_id).values(values))
    if done.rowcount == 0:
        what = "tenant" if table is tenants else "key"
        raise UnknownAccount(f"{what} '{row_id}'")


def _tenant(row: RowMapping) -> Tenant:
    return Tenant(
        row["id"],
        row["name"],
        row["available"],
        row["created_at"],
        limits_of(row),
        tuple(row["alerts_below"]),
        settings_of(row),
    )


def limits_of(row: RowMapping, prefix: str = "") -> RateLimits:
    return RateLimits(**{name: row[f"{prefix}{name}"] for name in RateLimits.__slots__})


def settings_of(row: RowMapping, prefix: str = "") -> TenantSettings:
    return TenantSettings(**{name: row[f"{prefix}{name}"] for name in TENANT_SETTINGS})


def check_limits(limits: RateLimits) -> None:
    for name, limit in asdict(limits).items():
        if limit is not None and not 0 <= limit <= AMOUNT_MAX:
            raise AccountProblem(f"{name} must be 0 to {AMOUNT_MAX:,}, or absent")


def check_text(what: str, value: str, characters_max: int) -> None:
    if not value.strip() or not value.isprintable() or len(value) > characters_max:
        raise AccountProblem(
            f"the {what} must have 1 to {characters_max} printable characters, not only spaces"
        )
