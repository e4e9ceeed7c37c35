"""State machine of a reservation, whose id is unique to one HTTP request:

    reserve ─> PENDING ─┬─ commit(amount <= reserved) ─> COMMITTED ── reverse ─> VOIDED
                        ├─ void, reverse ──────────────> VOIDED
                        └─ expire(now >= expires_at) ──> EXPIRED

The first settlement wins, and its repetition has no effect. Only ``reverse`` takes back a charge,
after a commit that was reported as failed because the database's response was lost. For every
tenant, always: ``granted == available + pending + charged`` and ``available >= 0``.

Each function returns the change to write, or ``None``, so a rejected operation has no effect.

Source: two-phase transfers, TigerBeetle, docs/coding/two-phase-transfers.md.
"""

from dataclasses import dataclass
from enum import StrEnum

from serve_app.domain.errors import ReservationClosed
from serve_app.domain.units import (
    NO_REVISION,
    Credits,
    KeyId,
    ModelId,
    Moment,
    RequestId,
    Revision,
    TenantId,
    Tokens,
)

NOTHING = Credits(0)
NO_TOKENS = Tokens(0)
UNKNOWN = "unknown"
"""State of an id that was never reserved."""


class State(StrEnum):
    """The state of a reservation."""

    PENDING = "pending"
    COMMITTED = "committed"
    VOIDED = "voided"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Reservation:
    """Credit reserved for one request."""

    request_id: RequestId
    tenant: TenantId
    key_id: KeyId
    model: ModelId
    amount: Credits
    created_at: Moment
    expires_at: Moment
    state: State = State.PENDING
    charged: Credits = NOTHING
    """Zero until the reservation is committed."""

    key_capped: bool = False
    """Whether it also counts towards the key's monthly cap."""

    revision: Revision = NO_REVISION


@dataclass(frozen=True, slots=True)
class Settlement:
    """The final state of a reservation, its charge and the credit returned to the tenant."""

    state: State
    charged: Credits
    returned: Credits


def must_reserve(known: Reservation | None, wanted: Reservation) -> bool:
    """Return whether credit must be reserved; false if the same reservation is already pending.

    Raises: ReservationClosed if the id belongs to a different reservation, or is settled: that
    would allow a second computation for one charge.
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
    """Charge ``amount`` and release the rest, even if the reservation is overdue.

    Raises: ReservationClosed if it is void or expired, was committed for another amount, or never
    existed. The response must not be sent.
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
    if known is None or known.state is not State.PENDING:
        return None
    return Settlement(State.VOIDED, NOTHING, known.amount)


def expire(known: Reservation, now: Moment) -> Settlement | None:
    if known.state is not State.PENDING or now < known.expires_at:
        return None
    return Settlement(State.EXPIRED, NOTHING, known.amount)


def reverse(known: Reservation | None) -> Settlement | None:
    if known is not None and known.state is State.COMMITTED:
        return Settlement(State.VOIDED, NOTHING, known.charged)
    return void(known)
