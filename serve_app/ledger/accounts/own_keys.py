"""Rules for a tenant that manages its own keys, checked in the transaction of each change.

Keys of other tenants are answered like keys that do not exist.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TypeVar

from sqlalchemy import Connection, func, or_, select

from serve_app.domain.errors import RateLimited
from serve_app.domain.model import LimitChanges
from serve_app.domain.units import KeyId, Moment, TenantId
from serve_app.ledger.accounts.credit_grants import Grant
from serve_app.ledger.accounts.tenant_accounts import AccountProblem, UnknownAccount, find_tenant
from serve_app.ledger.accounts.tenant_keys import Key, get_key
from serve_app.ledger.db.audit_log import AuditEntry
from serve_app.ledger.db.tables import api_keys, audit_log
from serve_app.ledger.posting.sql import lock_accounts

USABLE_KEYS_MAX = 1_000
"""Most keys of a tenant that are neither revoked nor expired, if the tenant creates them."""

CHANGES_PER_HOUR_MAX = 300
"""Most audit log entries of a tenant per hour, because the log is kept forever. Revocations are not
limited: each key is revoked once."""

HOUR_MS = 3_600_000

OPERATOR = "operator"

Authored = TypeVar("Authored", Grant, AuditEntry)


def own_key(connection: Connection, tenant: TenantId, key_id: KeyId) -> Key:
    """Return a key of the tenant. Raises: UnknownAccount, also for one of another tenant."""
    key = get_key(connection, key_id)
    if key.stored.caller.tenant != tenant:
        raise UnknownAccount(f"key '{key_id}'")
    return key


def begin_change(connection: Connection, tenant: TenantId, now: Moment) -> None:
    """Lock the account for a change by the tenant itself. Raises: RateLimited."""
    lock_accounts(connection, {tenant})
    query = select(audit_log.c.at).where(audit_log.c.tenant_id == tenant)
    nth_newest = query.order_by(audit_log.c.id.desc()).offset(CHANGES_PER_HOUR_MAX - 1).limit(1)
    at = connection.scalar(nth_newest)
    if at is not None and at > now - HOUR_MS:
        raise RateLimited("tenant", "changes", (at + HOUR_MS - now) / 1_000, ())


def check_room(connection: Connection, tenant: TenantId, now: Moment) -> None:
    """Raises: AccountProblem if the tenant may not have one more key."""
    usable = connection.scalar(
        select(func.count())
        .select_from(api_keys)
        .where(
            api_keys.c.tenant_id == tenant,
            api_keys.c.revoked_at.is_(None),
            or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > now),
        )
    )
    if usable is not None and usable >= USABLE_KEYS_MAX:
        raise AccountProblem(
            f"the tenant has {USABLE_KEYS_MAX:,} usable keys, which is the maximum: revoke some"
        )


def check_limits(connection: Connection, tenant: TenantId, limits: LimitChanges) -> None:
    """Raises: AccountProblem if a limit of a key is above the tenant's."""
    of_tenant = find_tenant(connection, tenant).limits
    for name, limit in limits.items():
        most = getattr(of_tenant, name)
        if isinstance(limit, int) and most is not None and limit > most:
            raise AccountProblem(f"{name} must be at most {most:,}, the limit of the tenant")


def with_own_authors(
    connection: Connection, tenant: TenantId, rows: Sequence[Authored]
) -> list[Authored]:
    """Replace every author that is no key of the tenant by `OPERATOR`."""
    named = {row.who.removeprefix("key ") for row in rows if row.who.startswith("key ")}
    own = {f"key {key_id}" for key_id in _of_tenant(connection, tenant, named)}
    return [row if row.who in own else replace(row, who=OPERATOR) for row in rows]


def _of_tenant(connection: Connection, tenant: TenantId, key_ids: Collection[str]) -> Sequence[str]:
    query = select(api_keys.c.id).where(api_keys.c.tenant_id == tenant, api_keys.c.id.in_(key_ids))
    return connection.scalars(query).all() if key_ids else ()
