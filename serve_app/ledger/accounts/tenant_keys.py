"""API keys: creation, lookup, limits, rotation and revocation.

This module sees only the digests of secrets; see `serve_app.access.api_keys`.
"""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, insert, select, tuple_, update

from serve_app.domain.model import (
    DEFAULT_SETTINGS,
    TENANT_SETTINGS,
    UNLIMITED,
    Caller,
    LimitChanges,
    RateLimits,
    TenantSettings,
)
from serve_app.domain.units import KeyId, ModelId, Moment, Seconds, TenantId
from serve_app.ledger.accounts import key_cap
from serve_app.ledger.accounts.tenant_accounts import (
    AccountConflict,
    AccountProblem,
    UnknownAccount,
    change,
    check_limits,
    check_text,
    limits_of,
    settings_of,
)
from serve_app.ledger.db.audit_log import AuditContext, record
from serve_app.ledger.db.tables import api_keys, tenants
from serve_app.ledger.posting.sql import lock_accounts
from serve_app.ports import StoredKey

ROTATION_OVERLAP_S_MAX = Seconds(90 * 86_400)


@dataclass(frozen=True, slots=True)
class Key:
    """An API key with the details shown to operators."""

    stored: StoredKey
    label: str
    tenant_name: str
    created_at: Moment
    last_used_at: Moment | None
    replaces: KeyId | None


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key to be stored."""

    id: KeyId
    secret_sha256: bytes
    label: str
    scopes: Collection[str]
    models: Collection[ModelId] | None
    """``None`` means every model."""

    expires_at: Moment | None
    limits: RateLimits = UNLIMITED


def create_key(connection: Connection, tenant: TenantId, key: NewKey, audit: AuditContext) -> None:
    """Raises: AccountProblem."""
    row = _insert_key(connection, tenant, key, audit, replaces=None)
    details = {name: row[name] for name in ("label", "scopes", "models", "expires_at")}
    record(connection, audit, "key.create", tenant, key.id, details | asdict(key.limits))


def list_keys(
    connection: Connection,
    tenant: TenantId | None,
    *,
    after: tuple[Moment, str] | None = None,
    count_max: int | None = None,
) -> list[Key]:
    """Return keys, revoked and expired ones included, oldest first.

    ``after`` is the creation time and id of the previous page's last key.
    """
    order = (api_keys.c.created_at, api_keys.c.id)
    query = _keys().order_by(*order).limit(count_max)
    if tenant is not None:
        query = query.where(api_keys.c.tenant_id == tenant)
    if after is not None:
        query = query.where(tuple_(*order) > tuple_(*after))
    return [_key(row) for row in connection.execute(query).mappings()]


def get_key(connection: Connection, key_id: KeyId) -> Key:
    """Raises: UnknownAccount."""
    row = connection.execute(_keys().where(api_keys.c.id == key_id)).mappings().one_or_none()
    if row is None:
        raise UnknownAccount(f"key '{key_id}'")
    return _key(row)


def find_keys(connection: Connection, key_ids: Sequence[KeyId]) -> dict[KeyId, StoredKey]:
    """Return the existing keys, including revoked and expired ones."""
    rows = connection.execute(_keys().where(api_keys.c.id.in_(key_ids))).mappings()
    return {
        KeyId(row["id"]): _stored(row, limits_of(row, "tenant_"), settings_of(row, "tenant_"))
        for row in rows
    }


def change_key_limits(
    connection: Connection, key_id: KeyId, limits: LimitChanges, audit: AuditContext
) -> None:
    """Raises: AccountProblem."""
    lock_accounts(connection, {_tenant_of(connection, key_id)})
    known = get_key(connection, key_id).stored.caller.key_limits
    set_key_limits(connection, key_id, replace(known, **limits), audit)


def set_key_limits(
    connection: Connection, key_id: KeyId, limits: RateLimits, audit: AuditContext
) -> None:
    """Replace the key's limits; gateways apply them within seconds. Raises: AccountProblem."""
    check_limits(limits)
    tenant = _tenant_of(connection, key_id)
    lock_accounts(connection, {tenant})
    values = asdict(limits)
    known = get_key(connection, key_id).stored.caller.key_limits
    if (
        limits.monthly_budget_micro_dollars is not None
        and known.monthly_budget_micro_dollars is None
    ):
        values |= key_cap.begin(connection, tenant, key_id, audit.now)
    change(connection, api_keys, key_id, values)
    record(connection, audit, "key.limits", tenant, key_id, asdict(limits))


def set_key_label(connection: Connection, key_id: KeyId, label: str, audit: AuditContext) -> None:
    """Raises: AccountProblem."""
    check_text("label", label, 128)
    tenant = _tenant_of(connection, key_id)
    change(connection, api_keys, key_id, {"label": label})
    record(connection, audit, "key.label", tenant, key_id, {"label": label})


def rotate_key(
    connection: Connection,
    key_id: KeyId,
    new: tuple[KeyId, bytes],
    overlap_s: Seconds,
    audit: AuditContext,
) -> None:
    """Replace a key by ``new``, (id, secret_sha256), with the same permissions and limits.

    The old key remains valid for ``overlap_s``, unless it expires earlier.

    Raises: AccountConflict if the key was already rotated, AccountProblem.
    """
    if not 0 <= overlap_s <= ROTATION_OVERLAP_S_MAX:
        raise AccountProblem(f"the overlap must be 0 to {ROTATION_OVERLAP_S_MAX:,.0f} s")
    tenant = _tenant_of(connection, key_id)
    # A concurrent rotation waits here.
    lock_accounts(connection, {tenant})
    _check_not_replaced(connection, tenant, key_id)
    old = connection.execute(select(api_keys).where(api_keys.c.id == key_id)).mappings().one()
    if old["revoked_at"] is not None or (old["expires_at"] or audit.now + 1) <= audit.now:
        raise AccountProblem(f"the key '{key_id}' is revoked or expired: create a new one")
    stored = _stored(old)
    end = Moment(audit.now + round(overlap_s * 1_000))
    if stored.expires_at is not None:
        end = min(end, stored.expires_at)
    caller = stored.caller
    key = NewKey(
        *new, old["label"], caller.scopes, caller.models, stored.expires_at, caller.key_limits
    )
    _insert_key(connection, caller.tenant, key, audit, replaces=key_id)
    if caller.key_limits.monthly_budget_micro_dollars is not None:
        # A rotation must not reset the cap.
        spent = {name: old[name] for name in ("spent_month", "spent_amount")}
        change(connection, api_keys, key.id, spent)
    change(connection, api_keys, key_id, {"expires_at": end})
    details = {"replaces": key_id, "old_expires_at": end}
    record(connection, audit, "key.rotate", caller.tenant, key.id, details)


def revoke_key(connection: Connection, key_id: KeyId, audit: AuditContext) -> None:
    """Revoke a key; a revoked one keeps its first revocation time. Raises: AccountProblem."""
    tenant = _tenant_of(connection, key_id)
    connection.execute(
        update(api_keys)
        .where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
        .values(revoked_at=audit.now)
    )
    record(connection, audit, "key.revoke", tenant, key_id, {})


def _check_not_replaced(connection: Connection, tenant: TenantId, key_id: KeyId) -> None:
    replacement = connection.scalar(
        select(api_keys.c.id).where(api_keys.c.tenant_id == tenant, api_keys.c.replaces == key_id)
    )
    if replacement is not None:
        raise AccountConflict(f"the key '{key_id}' was already replaced by '{replacement}'")


def _insert_key(
    connection: Connection,
    tenant: TenantId,
    key: NewKey,
    audit: AuditContext,
    *,
    replaces: KeyId | None,
) -> dict[str, Any]:
    check_text("label", key.label, 128)
    check_limits(key.limits)
    row = {
        "id": key.id,
        "tenant_id": tenant,
        "label": key.label,
        "secret_sha256": key.secret_sha256,
        "scopes": sorted(key.scopes),
        "models": None if key.models is None else sorted(key.models),
        "created_at": audit.now,
        "expires_at": key.expires_at,
        "replaces": replaces,
    }
    connection.execute(insert(api_keys), row | asdict(key.limits))
    return row


def _tenant_of(connection: Connection, key_id: KeyId) -> TenantId:
    tenant = connection.scalar(select(api_keys.c.tenant_id).where(api_keys.c.id == key_id))
    if tenant is None:
        raise UnknownAccount(f"key '{key_id}'")
    return TenantId(tenant)


def _keys() -> Select[tuple[object, ...]]:
    names = ("name", *TENANT_SETTINGS, *RateLimits.__slots__)
    of_tenant = (tenants.c[name].label(f"tenant_{name}") for name in names)
    return select(*api_keys.c, *of_tenant).join(tenants, tenants.c.id == api_keys.c.tenant_id)


def _key(row: RowMapping) -> Key:
    return Key(
        _stored(row),
        row["label"],
        row["tenant_name"],
        row["created_at"],
        row["last_used_at"],
        row["replaces"],
    )


def _stored(
    row: RowMapping,
    tenant_limits: RateLimits = UNLIMITED,
    tenant_settings: TenantSettings = DEFAULT_SETTINGS,
) -> StoredKey:
    models = row["models"]
    caller = Caller(
        tenant=row["tenant_id"],
        key_id=row["id"],
        scopes=frozenset(row["scopes"]),
        models=None if models is None else frozenset(models),
        tenant_limits=tenant_limits,
        key_limits=limits_of(row),
        tenant_settings=tenant_settings,
    )
    return StoredKey(caller, bytes(row["secret_sha256"]), row["revoked_at"], row["expires_at"])
