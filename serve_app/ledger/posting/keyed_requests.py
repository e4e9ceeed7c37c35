"""Requests with an idempotency key, in the transactions of `books`.

The lock of the tenant covers its keys. The rule is `serve_app.ledger.money.idempotency`.
"""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Executable, bindparam, delete, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite

from serve_app.domain.units import Moment, RequestId, TenantId
from serve_app.ledger.db.pipelined import UNREAD
from serve_app.ledger.db.tables import idempotent_requests as table
from serve_app.ledger.money.idempotency import KEPT_MS, KeyedRequest
from serve_app.ledger.posting import sql

Key = tuple[TenantId, bytes]
"""A tenant, and the digest of an idempotency key."""

_key = tuple_(table.c.tenant_id, table.c.key_sha256)
_known = select(table).where(_key.in_(bindparam("keys", expanding=True)))
_of_request = (
    table.c.tenant_id == bindparam("row_tenant"),
    table.c.key_sha256 == bindparam("row_key"),
    table.c.request_id == bindparam("row_request"),
)
_store_outcome = (
    update(table)
    .where(*_of_request)
    .values(outcome=bindparam("new_outcome"))
    .execution_options(**UNREAD)
)
_mark_replayed = update(table).where(*_of_request).values(replayed=True)
_is_replayed = select(table.c.replayed).where(*_of_request)
_due = (
    select(table.c.tenant_id, table.c.key_sha256)
    .where(table.c.created_at <= bindparam("before"))
    .order_by(table.c.created_at)
    .limit(bindparam("count"))
    .with_for_update(skip_locked=True)
)
_forget = delete(table).where(_key.in_(_due))


class KeyedRequests:
    """The requests of one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._known: dict[Key, KeyedRequest] = {}
        self._begun: dict[Key, dict[str, Any]] = {}
        self._outcomes: list[dict[str, Any]] = []

    def read(self, keys: Collection[Key]) -> list[RequestId]:
        rows = self._connection.execute(_known, {"keys": sorted(keys)}).all()
        for row in rows:
            self._known[row.tenant_id, row.key_sha256] = KeyedRequest(
                row.request_id, row.request_sha256, row.created_at, row.outcome
            )
        return [row.request_id for row in rows]

    def get(self, key: Key) -> KeyedRequest | None:
        return self._known.get(key)

    def begin(self, key: Key, request: KeyedRequest) -> None:
        """Store a request that runs now, in place of an earlier one."""
        self._known[key] = request
        self._begun[key] = {
            "tenant_id": key[0],
            "key_sha256": key[1],
            "request_sha256": request.request_sha256,
            "request_id": request.request_id,
            "created_at": request.created_at,
            "outcome": None,
            "replayed": False,
        }

    def store(self, key: Key, request_id: RequestId, outcome: bytes) -> None:
        known = self._known.get(key)
        if known is not None and known.request_id == request_id:
            self._known[key] = replace(known, outcome=outcome)
        self._outcomes.append(_row(key, request_id) | {"new_outcome": outcome})

    def mark_replayed(self, key: Key, request_id: RequestId) -> None:
        """Note that the stored outcome was sent, so the charge must stay."""
        self._connection.execute(_mark_replayed, _row(key, request_id))

    def is_replayed(self, key: Key, request_id: RequestId) -> bool:
        return bool(self._connection.scalar(_is_replayed, _row(key, request_id)))

    def write(self) -> None:
        begin = _BEGIN[self._connection.dialect.name]
        sql.write(self._connection, begin, [*self._begun.values()])
        sql.write(self._connection, _store_outcome, self._outcomes)
        self._begun.clear()
        self._outcomes.clear()


def forget(connection: Connection, now: Moment, count_max: int) -> int:
    """Delete keys that are no longer known, without waiting for locks.

    This must be the last statement of its transaction: requests may wait for it.
    """
    return connection.execute(_forget, {"before": now - KEPT_MS, "count": count_max}).rowcount


def _row(key: Key, request_id: RequestId) -> dict[str, Any]:
    return {"row_tenant": key[0], "row_key": key[1], "row_request": request_id}


def _upsert(insert: Any) -> Executable:
    names = ("request_sha256", "request_id", "created_at", "outcome", "replayed")
    insert = insert(table)
    upsert: Executable = insert.on_conflict_do_update(
        index_elements=["tenant_id", "key_sha256"],
        set_={name: insert.excluded[name] for name in names},
    ).execution_options(**UNREAD)
    return upsert


_BEGIN = {"sqlite": _upsert(sqlite.insert), "postgresql": _upsert(postgresql.insert)}
