"""What may become of a reservation. Pure: no clock, no SQL.

An id is made by the server for one HTTP request and used once, for ever:

    reserve ─> PENDING ─┬─ commit(amount <= reserved) ─> COMMITTED ── reverse ─> VOIDED
                        ├─ void, reverse ──────────────> VOIDED
                        └─ expire(now >= expires_at) ──> EXPIRED

The first settlement wins, and repeating it is harmless. The one exception is ``reverse``: it takes
a charge back whose caller was told that the commit failed, because the database's answer was lost.
For every tenant, always: ``granted == available + pending + charged`` and ``available >= 0``.

Each function looks at a reservation and answers what to write: ``None`` means nothing. They are
asked before anything is changed, so a refusal leaves no trace.

Source: two-phase transfers, TigerBeetle, docs/coding/two-phase-transfers.md.
"""

from dataclasses import dataclass
from enum import StrEnum

from serve_app.domain.errors import ReservationClosed
from serve_app.domain.units import Credits, KeyId, ModelId, Moment, RequestId, TenantId, Tokens

NOTHING = Credits(0)
NO_TOKENS = Tokens(0)
UNKNOWN = "unknown"
"""What `ReservationClosed` says of an id that was never reserved."""


class State(StrEnum):
    """Where a reservation stands."""

    PENDING = "pending"
    COMMITTED = "committed"
    VOIDED = "voided"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Reservation:
    """Credit set aside for one request."""

    request_id: RequestId
    tenant: TenantId
    key_id: KeyId
    model: ModelId
    amount: Credits
    created_at: Moment
    expires_at: Moment
    state: State = State.PENDING
    charged: Credits = NOTHING
    """Nothing until it is committed."""

    key_capped: bool = False
    """Whether the key's monthly cap counts it, besides the tenant's."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """How a reservation ends, and what goes back to the tenant with it."""

    state: State
    charged: Credits
    returned: Credits


def must_reserve(known: Reservation | None, wanted: Reservation) -> bool:
    """Whether credit must be set aside; False when the same reservation already stands.

    Raises:
        ReservationClosed: The id is settled, or stands for something else. Letting a settled id
            through would buy a second computation with the first payment.
    """
    assert wanted.amount >= NOTHING
    assert wanted.state is State.PENDING
    if known is None:
        return True
    same = (known.tenant, known.model, known.amount) == (wanted.tenant, wanted.model, wanted.amount)
    if known.state is not State.PENDING or not same:
        raise ReservationClosed(known.state)
    return False


def commit(known: Reservation | None, amount: Credits) -> Settlement | None:
    """Charge ``amount`` and give the rest back.

    The state decides, not the time: a reservation past its expiry that nobody has expired yet
    still holds its credit, so charging it takes nothing from anyone.

    Raises:
        ReservationClosed: It was voided, it expired, it was committed for another amount, or it
            was never made. The answer must not go out.
    """
    if known is None:
        raise ReservationClosed(UNKNOWN)
    assert NOTHING <= amount <= known.amount
    match known.state:
        case State.PENDING:
            return Settlement(State.COMMITTED, amount, Credits(known.amount - amount))
        case State.COMMITTED if known.charged == amount:
            return None
        case _:
            raise ReservationClosed(known.state)


def void(known: Reservation | None) -> Settlement | None:
    """Give everything back, unless the reservation is settled or was never made."""
    if known is None or known.state is not State.PENDING:
        return None
    return Settlement(State.VOIDED, NOTHING, known.amount)


def expire(known: Reservation, now: Moment) -> Settlement | None:
    """Give everything back, if it is pending and its time has come."""
    if known.state is not State.PENDING or now < known.expires_at:
        return None
    return Settlement(State.EXPIRED, NOTHING, known.amount)


def reverse(known: Reservation | None) -> Settlement | None:
    """Void, even if it was committed: for a commit that was reported as failed."""
    if known is not None and known.state is State.COMMITTED:
        return Settlement(State.VOIDED, NOTHING, known.charged)
    return void(known)
