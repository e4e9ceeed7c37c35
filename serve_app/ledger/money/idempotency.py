"""Decide what happens to a request with an idempotency key.

The last request with that key decides:

    none in 24 hours, or it failed ──> the request runs
    the same request, charged ──────> its stored outcome is the answer
    the same request, running ──────> IdempotencyKeyInUse
    another one, charged or running ─> IdempotencyKeyReused

A request fails if its reservation is voided or expires.
"""

from dataclasses import dataclass

from serve_app.domain.errors import IdempotencyKeyInUse, IdempotencyKeyReused
from serve_app.domain.units import Moment, RequestId
from serve_app.ledger.money.calendar import MILLISECONDS_PER_DAY
from serve_app.ledger.money.reservation import Reservation, State

KEPT_MS = MILLISECONDS_PER_DAY
"""Time for which the key of a request is known."""

OTHER_REQUEST = "this Idempotency-Key was used for a request with another route or body"


@dataclass(frozen=True, slots=True)
class KeyedRequest:
    """The newest request that ran with an idempotency key."""

    request_id: RequestId
    request_sha256: bytes
    created_at: Moment
    outcome: bytes | None = None


def stored_outcome(
    known: KeyedRequest | None, reserved: Reservation | None, wanted: KeyedRequest
) -> bytes | None:
    """Return the outcome that answers ``wanted``, or ``None`` if the request must run.

    ``reserved`` is the reservation of ``known``; ``None`` if it was never written or is deleted.

    Raises: IdempotencyKeyInUse, IdempotencyKeyReused.
    """
    if known is None or known.request_id == wanted.request_id:
        return None
    if wanted.created_at - known.created_at >= KEPT_MS:
        return None
    state = reserved.state if reserved else State.COMMITTED
    outcome = known.outcome if state is State.COMMITTED else None
    if outcome is None and state is not State.PENDING:
        return None
    if known.request_sha256 != wanted.request_sha256:
        raise IdempotencyKeyReused(OTHER_REQUEST)
    if reserved and state is State.PENDING:
        # A request that has run for a second will probably run for another one.
        ran_ms = wanted.created_at - reserved.created_at
        raise IdempotencyKeyInUse(min(ran_ms, reserved.expires_at - wanted.created_at) / 1_000)
    return outcome
