"""All expected failures of the service. No failure leads to a charge.

Errors cross Ray handles, which requires three rules:

* Every constructor argument is positional and reaches ``super().__init__``, because exceptions are
  pickled as ``cls(*self.args)``.
* There is no ``__init_subclass__`` hook, because Ray derives a class from ours when it re-raises.
* Clients see ``public_message``, never ``str(error)``: behind a handle, that is a remote
  traceback with a host address.
"""

from math import ceil
from typing import ClassVar

from serve_app.domain.model import RateLimitState
from serve_app.domain.units import Credits

NOTHING_CHARGED = "Nothing was charged."

RETRY_AFTER_S_MAX = 60
"""Some clients ignore a longer ``Retry-After`` and retry immediately."""


def retry_after(wait_s: float) -> int:
    """Round up to whole seconds, from 1 to `RETRY_AFTER_S_MAX`."""
    return max(1, min(RETRY_AFTER_S_MAX, ceil(wait_s)))


class RerankError(Exception):
    """Base of all expected failures. ``code`` is part of the public API."""

    code: ClassVar[str] = "internal"

    where: str | None = None
    """The request field at fault."""

    states: tuple[RateLimitState, ...] = ()
    """The caller's rate limits, for the response's headers."""

    @property
    def public_message(self) -> str:
        """Contains no internals, secrets or other tenants' data."""
        return f"The request failed. {NOTHING_CHARGED}"


class InvalidRequest(RerankError):
    """The request is malformed, or a text is too long for the model and must not be cut."""

    code = "invalid_request"

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(where, problem)
        self.where = where
        self.problem = problem

    @property
    def public_message(self) -> str:
        return f"{self.where}: {self.problem}. {NOTHING_CHARGED}"


class CompressedBody(InvalidRequest):
    """The header ``Content-Encoding`` names a compression. Send the body uncompressed."""

    code = "unsupported_media_type"


class Unauthenticated(RerankError):
    """The API key is missing, invalid, revoked or expired.

    Only a client with its secret learns that it was revoked or has expired.
    """

    code = "unauthenticated"

    def __init__(self, ended: str | None = None) -> None:
        super().__init__(ended)
        self.ended = ended

    @property
    def public_message(self) -> str:
        if self.ended is not None:
            return f"The API key {self.ended}. {NOTHING_CHARGED}"
        return (
            "The API key is missing or invalid. "
            f"Send it as 'Authorization: Bearer <key>'. {NOTHING_CHARGED}"
        )


class OutOfCredit(RerankError):
    """The highest possible price of the request exceeds the available credit."""

    code = "out_of_credit"

    def __init__(self, needed: Credits, available: Credits) -> None:
        super().__init__(needed, available)
        self.needed = needed
        self.available = available

    @property
    def public_message(self) -> str:
        return (
            f"The request may cost up to {self.needed} micro-dollars; "
            f"{self.available} are available. {NOTHING_CHARGED}"
        )


class SpendCapReached(RerankError):
    """The request would exceed the monthly (UTC) spending cap of the tenant or the key."""

    code = "spend_cap_reached"

    def __init__(self, whose: str, cap: Credits) -> None:
        super().__init__(whose, cap)
        self.whose = whose  # "key" or "tenant".
        self.cap = cap

    @property
    def public_message(self) -> str:
        return (
            f"This {self.whose} may spend {self.cap} micro-dollars per calendar month (UTC), "
            f"and the request would exceed that. {NOTHING_CHARGED}"
        )


class RateLimited(RerankError):
    """The tenant or the key reached its limit of requests, documents or changes of keys."""

    code = "rate_limit_exceeded"

    def __init__(
        self, whose: str, what: str, wait_s: float, states: tuple[RateLimitState, ...]
    ) -> None:
        super().__init__(whose, what, wait_s, states)
        self.whose = whose  # "key" or "tenant".
        self.what = what
        self.retry_after_s = retry_after(wait_s)
        self.states = states

    @property
    def public_message(self) -> str:
        return (
            f"Rate limit exceeded for this {self.whose}: too many {self.what}. "
            f"Retry in {self.retry_after_s} s. {NOTHING_CHARGED}"
        )


class ConcurrencyLimited(RerankError):
    """The tenant or the key reached its limit of concurrent requests, or that of a gateway."""

    code = "rate_limit_exceeded"

    def __init__(self, whose: str, limit: int) -> None:
        super().__init__(whose, limit)
        # `serve_app.admission.places` computes it.
        self.retry_after_s = 1
        self.whose = whose  # "key" or "tenant".
        self.limit = limit

    @property
    def public_message(self) -> str:
        return (
            f"At most {self.limit:,} concurrent requests of one {self.whose} are accepted. "
            f"Retry in {self.retry_after_s} s. {NOTHING_CHARGED}"
        )


class TooManyRefusals(RerankError):
    """Too many requests of the tenant were refused recently. This one was not read."""

    code = "rate_limit_exceeded"

    def __init__(self, limit: int, wait_s: float) -> None:
        super().__init__(limit, wait_s)
        self.limit = limit
        self.retry_after_s = retry_after(wait_s)

    @property
    def public_message(self) -> str:
        return (
            f"Too many requests of this tenant were refused recently (limit: {self.limit:,}; large "
            f"ones count more). Retry in {self.retry_after_s} s. {NOTHING_CHARGED}"
        )


class Forbidden(RerankError):
    """The key is valid, but may not use this model, route or key."""

    code = "forbidden"

    def __init__(self, what: str, where: str | None = None) -> None:
        super().__init__(what, where)
        self.what = what
        self.where = where

    @property
    def public_message(self) -> str:
        return f"This API key may not use {self.what}. {NOTHING_CHARGED}"


class NotFound(RerankError):
    """There is no such model, route, tenant, key or charge."""

    code = "not_found"

    def __init__(self, what: str, where: str | None) -> None:
        super().__init__(what, where)
        self.what = what
        self.where = where

    @property
    def public_message(self) -> str:
        return f"There is no {self.what}. {NOTHING_CHARGED}"


class Conflict(RerankError):
    """The change conflicts with existing data, such as a taken name or a rotated key."""

    code = "conflict"

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    @property
    def public_message(self) -> str:
        return f"{self.problem[:1].upper()}{self.problem[1:]}. {NOTHING_CHARGED}"


class IdempotencyKeyReused(Conflict):
    """The idempotency key was used with another route or body."""

    code = "idempotency_key_reused"


class IdempotencyKeyInUse(RerankError):
    """A request with this idempotency key is still running."""

    code = "idempotency_key_in_use"

    def __init__(self, wait_s: float) -> None:
        super().__init__(wait_s)
        self.retry_after_s = retry_after(wait_s)

    @property
    def public_message(self) -> str:
        return f"This Idempotency-Key is in use. Retry in {self.retry_after_s} s. {NOTHING_CHARGED}"


class MethodNotAllowed(RerankError):
    """The route exists, but does not accept this method."""

    code = "method_not_allowed"

    def __init__(self, method: str, allowed: str) -> None:
        super().__init__(method, allowed)
        self.method = method
        self.allowed = allowed

    @property
    def public_message(self) -> str:
        return f"{self.method} is not allowed here; allowed: {self.allowed}. {NOTHING_CHARGED}"


class TooLarge(RerankError):
    """The body, the number of documents, pairs or windows, or the JSON exceeds its limit."""

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
    """The body did not arrive within ``body_timeout_s``."""

    code = "body_timeout"

    def __init__(self, timeout_s: float) -> None:
        super().__init__(timeout_s)
        self.timeout_s = timeout_s

    @property
    def public_message(self) -> str:
        return f"The body did not arrive within {self.timeout_s:g} s. {NOTHING_CHARGED}"


class Overloaded(RerankError):
    """The service, or the tenant's own queue in it, is too full to answer in time."""

    code = "overloaded"

    def __init__(self, wait_s: float) -> None:
        super().__init__(wait_s)
        self.retry_after_s = retry_after(wait_s)

    @property
    def public_message(self) -> str:
        return f"The service is busy. Retry in {self.retry_after_s} s. {NOTHING_CHARGED}"


class ClientGone(RerankError):
    """The client disconnected before its answer was ready. Only logs have this code."""

    code = "client_gone"


class EngineFailure(RerankError):
    """The model failed on this request, or a score was not a finite number."""

    code = "engine_failure"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason  # For logs only.

    @property
    def public_message(self) -> str:
        return f"The model could not score this request. {NOTHING_CHARGED}"


class ReservationClosed(RerankError):
    """The reservation had expired or was settled otherwise before the charge."""

    code = "reservation_closed"

    def __init__(self, state: str) -> None:
        super().__init__(state)
        self.state = state

    @property
    def public_message(self) -> str:
        return f"The request took too long and its credit was released. {NOTHING_CHARGED}"


class LedgerUnavailable(RerankError):
    """The ledger's database did not answer in time."""

    code = "ledger_unavailable"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason  # For logs only.

    @property
    def public_message(self) -> str:
        return f"The ledger is temporarily unavailable. Retry shortly. {NOTHING_CHARGED}"


class NoReplica(RerankError):
    """No scorer is available, or three in turn died while scoring the same part."""

    code = "no_replica"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason  # For logs only.

    @property
    def public_message(self) -> str:
        return f"No replica of this model is ready. Retry shortly. {NOTHING_CHARGED}"


class ReplicaLost(NoReplica):
    """The replica died before it answered. A retry elsewhere is safe."""


class DeadlineExceeded(RerankError):
    """The deadline passed before the answer was ready."""

    code = "deadline_exceeded"

    def __init__(self, timeout_s: float) -> None:
        super().__init__(timeout_s)
        self.timeout_s = timeout_s

    @property
    def public_message(self) -> str:
        return (
            f"The answer was not ready within {self.timeout_s:g} s. Send fewer documents in a "
            f"request, or allow more time (x-request-timeout-s). {NOTHING_CHARGED}"
        )
