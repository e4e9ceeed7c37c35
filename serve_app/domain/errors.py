"""Every failure this service reports on purpose.

    RerankError
    ├─ InvalidRequest      the body is not a request we accept
    ├─ Unauthenticated     no API key, or one we do not know, or one that was revoked
    ├─ OutOfCredit         the tenant cannot cover the charge
    ├─ SpendCapReached     the month's cap of the tenant or the key would be passed
    ├─ RateLimited         the tenant or the key asked for more than it may in a minute, or at once
    ├─ ConcurrencyLimited  a gateway works on as many of the key's or tenant's requests as it may
    ├─ TooManyRefusals     too many of the tenant's requests were refused lately
    ├─ Forbidden           the key is good, but not for this model or route
    ├─ NotFound            no such model, route or account
    ├─ Conflict            somebody else was faster, or it was asked for otherwise before
    ├─ MethodNotAllowed    the route exists, the method does not
    ├─ TooLarge            the body, or the number of documents, is over its limit
    ├─ BodyTimeout         the body did not arrive in its time
    ├─ Overloaded          admission refused the work; nothing was computed
    ├─ ClientGone          the client hung up (for logs: nobody is left to read it)
    ├─ EngineFailure       the model failed, or produced a logit that is not a number
    ├─ ReservationClosed   a commit came after a void, an expiry or another amount
    ├─ LedgerUnavailable   the ledger database did not answer
    ├─ NoReplica           no scorer is there, and none came in time
    │  └─ ReplicaLost      the scorer that had the work died; the work may be tried again
    └─ DeadlineExceeded    the request's time is up

None of them leaves a charge behind, and every message to a client says so. They cross Ray handles,
which sets three rules (`tests/unit/domain/test_errors.py`):

* every constructor argument is positional and reaches ``super().__init__``, because an exception
  is pickled as ``cls(*self.args)``;
* no ``__init_subclass__`` hook, because Ray derives a class from ours when it re-raises;
* clients see ``public_message``, never ``str(error)``: on the far side of a handle ``str`` is the
  remote traceback, with a host address in it.

HTTP statuses live in `serve_app.http.problems`, not here.
"""

from math import ceil
from typing import ClassVar, Self

from serve_app.domain.model import RateLimitState
from serve_app.domain.units import Credits

NOTHING_CHARGED = "Nothing was charged."

RETRY_AFTER_S_MAX = 60
"""Some clients ignore a longer ``Retry-After`` and retry at once."""


def retry_after(wait_s: float) -> int:
    """``wait_s`` as a ``Retry-After``: whole seconds, rounded up, from 1 to `RETRY_AFTER_S_MAX`."""
    return max(1, min(RETRY_AFTER_S_MAX, ceil(wait_s)))


class RerankError(Exception):
    """Base of all deliberate failures; ``code`` is part of the public API."""

    code: ClassVar[str] = "internal"

    where: str | None = None
    """The request field at fault, if one is."""

    @property
    def public_message(self) -> str:
        """What the client may read: no internals, no secrets, no other tenant."""
        return f"The request failed. {NOTHING_CHARGED}"


class InvalidRequest(RerankError):
    """The body is not a request we accept; ``where`` names the field, ``problem`` the fault."""

    code = "invalid_request"

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(where, problem)
        self.where = where
        self.problem = problem

    @property
    def public_message(self) -> str:
        return f"{self.where}: {self.problem}. {NOTHING_CHARGED}"


class Unauthenticated(RerankError):
    """No API key, or not one of ours, or no longer; deliberately without details."""

    code = "unauthenticated"

    @property
    def public_message(self) -> str:
        return (
            "The API key is missing or not valid. "
            f"Send it as 'Authorization: Bearer <key>'. {NOTHING_CHARGED}"
        )


class OutOfCredit(RerankError):
    """The tenant's available credit is below what the request costs."""

    code = "out_of_credit"

    def __init__(self, needed: Credits, available: Credits) -> None:
        super().__init__(needed, available)
        self.needed = needed
        self.available = available

    @property
    def public_message(self) -> str:
        return (
            f"The request costs {self.needed} micro-dollars; {self.available} are available. "
            f"{NOTHING_CHARGED}"
        )


class SpendCapReached(RerankError):
    """The request would pass what ``whose``, the key or the tenant, may spend this month."""

    code = "spend_cap_reached"

    def __init__(self, whose: str, cap: Credits) -> None:
        super().__init__(whose, cap)
        self.whose = whose
        self.cap = cap

    @property
    def public_message(self) -> str:
        return (
            f"This {self.whose} may spend {self.cap} micro-dollars a month (UTC), "
            f"and the request would pass that. {NOTHING_CHARGED}"
        )


class RateLimited(RerankError):
    """A limit of this caller is reached; ``states`` are the headers that say so."""

    code = "rate_limit_exceeded"

    def __init__(
        self, whose: str, what: str, wait_s: float, states: tuple[RateLimitState, ...]
    ) -> None:
        super().__init__(whose, what, wait_s, states)
        self.whose = whose
        self.what = what
        self.retry_after_s = retry_after(wait_s)
        self.states = states

    @property
    def public_message(self) -> str:
        return (
            f"This {self.whose} may not ask for more {self.what} now. "
            f"Retry in {self.retry_after_s} s. {NOTHING_CHARGED}"
        )


class ConcurrencyLimited(RerankError):
    """The gateway reads and works on ``limit`` requests of ``whose``, key or tenant, already."""

    code = "rate_limit_exceeded"
    retry_after_s = 1

    def __init__(self, whose: str, limit: int) -> None:
        super().__init__(whose, limit)
        self.whose = whose
        self.limit = limit

    @property
    def public_message(self) -> str:
        return (
            f"At most {self.limit:,} requests of one {self.whose} are worked on at a time. "
            f"Retry in {self.retry_after_s} s. {NOTHING_CHARGED}"
        )


class TooManyRefusals(RerankError):
    """More than ``limit`` requests of the tenant were refused lately; this one was not read."""

    code = "rate_limit_exceeded"

    def __init__(self, limit: int, wait_s: float) -> None:
        super().__init__(limit, wait_s)
        self.limit = limit
        self.retry_after_s = retry_after(wait_s)

    @property
    def public_message(self) -> str:
        return (
            f"More than {self.limit:,} requests of this tenant were refused lately, so this one "
            f"was not read. Retry in {self.retry_after_s} s. {NOTHING_CHARGED}"
        )


class Forbidden(RerankError):
    """The key is known, but may not use this model or route; ``what`` names it."""

    code = "forbidden"

    def __init__(self, what: str, where: str | None = None) -> None:
        super().__init__(what, where)
        self.what = what
        self.where = where

    @property
    def public_message(self) -> str:
        return f"This API key may not use {self.what}. {NOTHING_CHARGED}"


class NotFound(RerankError):
    """There is no such model or route; ``what`` names it in the client's own words."""

    code = "not_found"

    def __init__(self, what: str, where: str | None) -> None:
        super().__init__(what, where)
        self.what = what
        self.where = where

    @property
    def public_message(self) -> str:
        return f"There is no {self.what}. {NOTHING_CHARGED}"


class Conflict(RerankError):
    """What is asked for cannot be beside what there is; ``problem`` says why."""

    code = "conflict"

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    @property
    def public_message(self) -> str:
        return f"{self.problem[:1].upper()}{self.problem[1:]}. {NOTHING_CHARGED}"


class MethodNotAllowed(RerankError):
    """The route exists but answers other methods only."""

    code = "method_not_allowed"

    def __init__(self, method: str, allowed: str) -> None:
        super().__init__(method, allowed)
        self.method = method
        self.allowed = allowed

    @property
    def public_message(self) -> str:
        return f"{self.method} is not allowed here; allowed: {self.allowed}. {NOTHING_CHARGED}"


class TooLarge(RerankError):
    """Something countable is over its limit; ``where`` names it."""

    code = "too_large"

    def __init__(self, where: str, limit: int, unit: str) -> None:
        super().__init__(where, limit, unit)
        self.where = where
        self.limit = limit
        self.unit = unit

    @property
    def public_message(self) -> str:
        return f"{self.where}: at most {self.limit:,} {self.unit} are accepted. {NOTHING_CHARGED}"


class BodyTimeout(RerankError):
    """The request's body did not arrive within its time."""

    code = "body_timeout"

    def __init__(self, timeout_s: float) -> None:
        super().__init__(timeout_s)
        self.timeout_s = timeout_s

    @property
    def public_message(self) -> str:
        return f"The body did not arrive within {self.timeout_s:g} s. {NOTHING_CHARGED}"


class Overloaded(RerankError):
    """Admission refused the work before any of it was queued."""

    code = "overloaded"

    def __init__(self, wait_s: float) -> None:
        super().__init__(wait_s)
        self.retry_after_s = retry_after(wait_s)

    @classmethod
    def until_gone(cls, excess: float, per_s: float) -> Self:
        """To be retried once ``excess`` has left at ``per_s``."""
        return cls(excess / per_s)

    @property
    def public_message(self) -> str:
        return f"The service is busy. Retry in {self.retry_after_s} s. {NOTHING_CHARGED}"


class ClientGone(RerankError):
    """The client closed the connection before its answer was ready."""

    code = "client_gone"


class EngineFailure(RerankError):
    """The model failed; the request may be retried and was not charged."""

    code = "engine_failure"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason  # For logs; never shown to the client.

    @property
    def public_message(self) -> str:
        return f"The model could not score this request. {NOTHING_CHARGED}"


class ReservationClosed(RerankError):
    """A commit arrived for a reservation that was already settled otherwise."""

    code = "reservation_closed"

    def __init__(self, state: str) -> None:
        super().__init__(state)
        self.state = state

    @property
    def public_message(self) -> str:
        return f"The request took too long and its credit was released. {NOTHING_CHARGED}"


class LedgerUnavailable(RerankError):
    """The ledger database did not answer in time."""

    code = "ledger_unavailable"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason  # For logs; never shown to the client.

    @property
    def public_message(self) -> str:
        return f"The request could not be accounted for. Retry shortly. {NOTHING_CHARGED}"


class NoReplica(RerankError):
    """No scorer for this model took the work."""

    code = "no_replica"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason  # For logs; never shown to the client.

    @property
    def public_message(self) -> str:
        return f"No replica of this model is ready. Retry shortly. {NOTHING_CHARGED}"


class ReplicaLost(NoReplica):
    """The scorer that had accepted the work died before it answered; scoring again is safe."""


class DeadlineExceeded(RerankError):
    """The request's time was up before its answer was ready."""

    code = "deadline_exceeded"

    def __init__(self, timeout_s: float) -> None:
        super().__init__(timeout_s)
        self.timeout_s = timeout_s

    @property
    def public_message(self) -> str:
        return (
            f"The answer was not ready within {self.timeout_s:g} s. Send fewer documents at once, "
            f"or ask for more time (x-request-timeout-s). {NOTHING_CHARGED}"
        )
