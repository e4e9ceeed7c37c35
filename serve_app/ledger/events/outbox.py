"""Transactional outbox: events for an external sink, written with the change they describe.

A row stays until `confirm`, so each event is delivered at least once.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select

from serve_app.domain.units import Credits, Moment, RequestId, TenantId
from serve_app.ledger.db.tables import grants, outbox
from serve_app.ledger.money.reservation import Reservation
from serve_app.telemetry.logs import get_logger

CHARGED = "rerank.charged"
CREDIT_LOW = "rerank.credit.low"

logger = get_logger(__name__)

_take_back = delete(outbox).where(outbox.c.event_id == bindparam("id"))
_grants_so_far = (
    select(func.count()).select_from(grants).where(grants.c.tenant_id == bindparam("tenant_id"))
)
_find = select(outbox.c.id).where(outbox.c.event_id == bindparam("id"))


@dataclass(frozen=True, slots=True)
class Event:
    """An event as it is sent to the sink."""

    id: str
    type: str
    tenant: TenantId
    at: Moment
    data: dict[str, Any]


def emit_charges(connection: Connection, charges: Sequence[Mapping[str, Any]]) -> None:
    rows = [
        {
            "event_id": charge["request_id"],
            "type": CHARGED,
            "tenant_id": charge["tenant_id"],
            "at": charge["charged_at"],
            "data": {name: charge[name] for name in ("key_id", "model", "documents", "tokens")}
            | {"amount_micro_dollars": charge["amount"]},
        }
        for charge in charges
    ]
    connection.execute(insert(outbox), rows)


def take_back(connection: Connection, request_ids: Sequence[RequestId]) -> None:
    """Delete the pending events of reversed charges; sent ones stay (`docs/operate/events.md`)."""
    connection.execute(_take_back, [{"id": request_id} for request_id in request_ids])


def report_low_credit(
    connection: Connection, wanted: Reservation, left: Credits, below: Credits, *, events: bool
) -> None:
    """Log that credit fell below ``below``. Add one event per threshold and number of grants."""
    logger.warning(
        "ledger_credit_low",
        extra={"tenant": wanted.tenant, "below_micro_dollars": below, "available": left},
    )
    if not events:
        return
    number = connection.scalar(_grants_so_far, {"tenant_id": wanted.tenant})
    event_id = f"low_{wanted.tenant}_{below}_{number}"
    if connection.execute(_find, {"id": event_id}).one_or_none() is None:
        data = {"below_micro_dollars": below, "available_micro_dollars": left}
        _add(connection, event_id, CREDIT_LOW, wanted.tenant, wanted.created_at, data)


def waiting(connection: Connection, count_max: int, without: Collection[str] = ()) -> list[Event]:
    query = select(outbox).where(outbox.c.event_id.not_in(without)).order_by(outbox.c.id)
    return [
        Event(row.event_id, row.type, row.tenant_id, row.at, row.data)
        for row in connection.execute(query.limit(count_max))
    ]


def oldest_at(connection: Connection) -> Moment | None:
    at = connection.scalar(select(outbox.c.at).order_by(outbox.c.id).limit(1))
    return None if at is None else Moment(at)


def confirm(connection: Connection, ids: Collection[str]) -> None:
    """Delete by event id, because SQLite reuses the numbers of deleted rows."""
    connection.execute(delete(outbox).where(outbox.c.event_id.in_(ids)))


def _add(
    connection: Connection,
    event_id: str,
    kind: str,
    tenant: TenantId,
    at: Moment,
    data: dict[str, Any],
) -> None:
    row = {"event_id": event_id, "type": kind, "tenant_id": tenant, "at": at, "data": data}
    connection.execute(insert(outbox), row)
