"""Tenants, their keys and their grants: what an operator sets up, and where a key is looked up.

A secret never comes here, only its digest: `serve_app.access.api_keys` makes both.
"""

import secrets
from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Connection, RowMapping, Select, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from serve_app.domain.model import Caller
from serve_app.domain.units import Credits, KeyId, ModelId, Moment, TenantId
from serve_app.ledger.tables import api_keys, grants, tenants
from serve_app.ports import StoredKey


class AccountProblem(Exception):
    """A wish that the accounts cannot fulfil; the message is one line for the operator."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """Who is billed."""

    id: TenantId
    name: str
    available: Credits
    created_at: Moment


@dataclass(frozen=True, slots=True)
class Key:
    """An API key and what an operator knows it by."""

    stored: StoredKey
    label: str
    tenant_name: str
    created_at: Moment


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key to be stored; the secret itself is only ever with its owner."""

    id: KeyId
    secret_sha256: bytes
    label: str
    scopes: Collection[str]
    models: Collection[ModelId] | None
    """Models the key may use; ``None`` means every model."""

    expires_at: Moment | None


def create_tenant(connection: Connection, name: str, now: Moment) -> Tenant:
    """A tenant without credit.

    Raises:
        AccountProblem: The name is taken or not fit to be one.
    """
    _check_text("name", name, 128)
    tenant = Tenant(TenantId(f"tn_{secrets.token_hex(8)}"), name, Credits(0), now)
    try:
        with connection.begin_nested():
            connection.execute(
                insert(tenants),
                {"id": tenant.id, "name": name, "available": 0, "created_at": now},
            )
    except IntegrityError:
        raise AccountProblem(f"there is already a tenant '{name}'") from None
    return tenant


def list_tenants(connection: Connection) -> list[Tenant]:
    """All tenants, by name."""
    rows = connection.execute(select(tenants).order_by(tenants.c.name)).mappings()
    return [_tenant(row) for row in rows]


def find_tenant(connection: Connection, name: str) -> Tenant:
    """The tenant of this name or id.

    Raises: AccountProblem.
    """
    query = select(tenants).where(or_(tenants.c.name == name, tenants.c.id == name))
    # A name may look like another tenant's id; the id wins, since names are chosen by people.
    rows = connection.execute(query.order_by(tenants.c.id != name)).mappings().all()
    if not rows:
        raise AccountProblem(f"there is no tenant '{name}'")
    return _tenant(rows[0])


def grant(
    connection: Connection, tenant: TenantId, amount: Credits, reason: str, who: str, now: Moment
) -> None:
    """Add ``amount`` to what the tenant may spend, and remember who granted it and why.

    Raises:
        AccountProblem: There is no such tenant, or the reason is not fit to print.
    """
    assert amount > 0
    _check_text("reason", reason, 512)
    _check_text("who", who, 128)
    given = connection.execute(
        update(tenants).where(tenants.c.id == tenant).values(available=tenants.c.available + amount)
    )
    if given.rowcount == 0:
        raise AccountProblem(f"there is no tenant '{tenant}'")
    connection.execute(
        insert(grants),
        {
            "id": f"gr_{secrets.token_hex(8)}",
            "tenant_id": tenant,
            "amount": amount,
            "reason": reason,
            "granted_by": who,
            "created_at": now,
        },
    )


def create_key(connection: Connection, tenant: TenantId, key: NewKey, now: Moment) -> None:
    """Store a key of an existing tenant.

    Raises: AccountProblem.
    """
    _check_text("label", key.label, 128)
    connection.execute(
        insert(api_keys),
        {
            "id": key.id,
            "tenant_id": tenant,
            "label": key.label,
            "secret_sha256": key.secret_sha256,
            "scopes": sorted(key.scopes),
            "models": None if key.models is None else sorted(key.models),
            "created_at": now,
            "expires_at": key.expires_at,
        },
    )


def list_keys(connection: Connection, tenant: TenantId | None) -> list[Key]:
    """Keys of one tenant, or of all, oldest first; revoked and expired ones included."""
    query = _keys().order_by(api_keys.c.created_at, api_keys.c.id)
    if tenant is not None:
        query = query.where(api_keys.c.tenant_id == tenant)
    return [
        Key(_stored(row), row["label"], row["tenant_name"], Moment(row["created_at"]))
        for row in connection.execute(query).mappings()
    ]


def find_key(connection: Connection, key_id: KeyId) -> StoredKey | None:
    """The key with this public id, revoked and expired ones included."""
    query = select(api_keys).where(api_keys.c.id == key_id)
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else _stored(row)


def revoke_key(connection: Connection, key_id: KeyId, now: Moment) -> None:
    """Make a key useless; a key revoked before keeps its first date.

    Raises: AccountProblem.
    """
    if find_key(connection, key_id) is None:
        raise AccountProblem(f"there is no key '{key_id}'")
    connection.execute(
        update(api_keys)
        .where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
        .values(revoked_at=now)
    )


def _keys() -> Select[tuple[object, ...]]:
    return select(*api_keys.c, tenants.c.name.label("tenant_name")).join(
        tenants, tenants.c.id == api_keys.c.tenant_id
    )


def _tenant(row: RowMapping) -> Tenant:
    return Tenant(row["id"], row["name"], row["available"], row["created_at"])


def _stored(row: RowMapping) -> StoredKey:
    models = row["models"]
    caller = Caller(
        tenant=row["tenant_id"],
        key_id=row["id"],
        scopes=frozenset(row["scopes"]),
        models=None if models is None else frozenset(models),
    )
    return StoredKey(caller, bytes(row["secret_sha256"]), row["revoked_at"], row["expires_at"])


def _check_text(what: str, value: str, characters_max: int) -> None:
    if not value.strip() or not value.isprintable() or len(value) > characters_max:
        raise AccountProblem(
            f"the {what} must be 1 to {characters_max} printable characters, not only spaces"
        )
