"""Events for the world outside, written in the transaction that makes them true.

A row stays until the sink has confirmed it (`serve_app.ledger.outbox.confirm`), so each event is
delivered at least once; its id is made from what happened, so that the sink can tell a repetition.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select

from serve_app.domain.units import Credits, Moment, RequestId, TenantId
from serve_app.ledger.rules import Reservation
from serve_app.ledger.tables import grants, outbox

CHARGED = "rerank.charged"
CREDIT_LOW = "rerank.credit.low"

logger = logging.getLogger(__name__)

_take_back = delete(outbox).where(outbox.c.event_id == bindparam("id"))
_grants_so_far = (
    select(func.count()).select_from(grants).where(grants.c.tenant_id == bindparam("tenant_id"))
)
_told = select(outbox.c.id).where(outbox.c.event_id == bindparam("id"))


@dataclass(frozen=True, slots=True)
class Event:
    """One row, as the sink is told it."""

    row: int
    id: str
    type: str
    tenant: TenantId
    at: Moment
    data: dict[str, Any]


def tell_charge(connection: Connection, charge: Mapping[str, Any]) -> None:
    """A request was charged; ``charge`` is its row."""
    data = {name: charge[name] for name in ("key_id", "model", "documents", "tokens")}
    data["amount_micro_dollars"] = charge["amount"]
    _add(
        connection,
        str(charge["request_id"]),
        CHARGED,
        charge["tenant_id"],
        charge["charged_at"],
        data,
    )


def take_back(connection: Connection, request_id: RequestId) -> None:
    """The charge was reversed before its event went out. Once it went out, it stays true for the
    sink: such a charge is the exception that `docs/operations.md` names."""
    connection.execute(_take_back, {"id": request_id})


def tell_low_credit(
    connection: Connection, wanted: Reservation, left: Credits, below: Credits, *, events: bool
) -> None:
    """What is available fell below ``below``. Logged, and told once for each amount and top-up."""
    logger.warning(
        "ledger_credit_low",
        extra={"tenant": wanted.tenant, "below_micro_dollars": below, "available": left},
    )
    if not events:
        return
    number = connection.scalar(_grants_so_far, {"tenant_id": wanted.tenant})
    event_id = f"low_{wanted.tenant}_{below}_{number}"
    if connection.execute(_told, {"id": event_id}).one_or_none() is None:
        data = {"below_micro_dollars": below, "available_micro_dollars": left}
        _add(connection, event_id, CREDIT_LOW, wanted.tenant, wanted.created_at, data)


def waiting(connection: Connection, count_max: int) -> list[Event]:
    """The oldest events that no sink has confirmed."""
    query = select(outbox).order_by(outbox.c.id).limit(count_max)
    return [
        Event(row.id, row.event_id, row.type, row.tenant_id, row.at, row.data)
        for row in connection.execute(query)
    ]


def confirm(connection: Connection, rows: Sequence[int]) -> None:
    """The sink has these."""
    connection.execute(delete(outbox).where(outbox.c.id.in_(rows)))


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
