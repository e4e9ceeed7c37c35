"""Parse request headers, and render rate-limit headers."""

import math
import re
from collections.abc import Iterable

from starlette.datastructures import Headers

from serve_app.domain.errors import InvalidRequest
from serve_app.domain.model import RateLimitState
from serve_app.domain.units import Seconds
from serve_app.protocols.limits import Limits

TIMEOUT_HEADER = "x-request-timeout-s"

IDEMPOTENCY_HEADER = "idempotency-key"
IDEMPOTENCY_KEY_CHARACTERS_MAX = 255
IDEMPOTENCY_KEY_PATTERN = rf"^[ -~]{{1,{IDEMPOTENCY_KEY_CHARACTERS_MAX}}}$"
"""Printable ASCII."""

REPLAYED_HEADER = "idempotent-replayed"

RATE_LIMIT_HEADERS = tuple(
    f"x-ratelimit-{value}-{what}"
    for what in ("requests", "documents")
    for value in ("limit", "remaining", "reset")
)

_DECIMAL = re.compile(r"[0-9]{1,9}(\.[0-9]{1,30})?")
_HOST = re.compile(r"([A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?")


def sent_keys(headers: Headers) -> tuple[str, ...]:
    """Return the possible API keys, in the order in which they are tried.

    They are sent as ``Authorization: Bearer <key>``, ``Authorization: <key>`` or ``X-API-Key:
    <key>``. Another scheme in ``Authorization`` is meant for a proxy. A bearer token may be, too,
    so any valid key identifies the caller.
    """
    authorization = headers.get("authorization", "").replace("\t", " ").strip()
    scheme, _, credentials = authorization.partition(" ")
    keys = [headers.get("x-api-key", "").strip()]
    if scheme.lower() == "bearer":
        keys.insert(0, credentials.strip())
    elif not credentials:
        keys.insert(0, scheme)
    return tuple(key for key in keys if key)


def timeout_s(headers: Headers, limits: Limits) -> Seconds:
    """Return the timeout. Raises: InvalidRequest unless it is a number above 0 within the limit."""
    value = headers.get(TIMEOUT_HEADER)
    if value is None:
        return limits.request_timeout_s
    seconds = float(value) if _DECIMAL.fullmatch(value) else 0.0
    if not 0 < seconds <= limits.request_timeout_s_max:
        raise InvalidRequest(
            TIMEOUT_HEADER,
            f"must be a number above 0 and at most {limits.request_timeout_s_max:g}",
        )
    return Seconds(seconds)


def is_cohere(headers: Headers) -> bool:
    return headers.get("x-fern-sdk-name", "") in ("cohere", "cohere-ai")  # Python, JavaScript


def server_url(headers: Headers, scheme: str) -> str:
    """Return the URL of the service as the client sees it, or ``/`` if ``Host`` is not valid.

    ``scheme`` is that of the connection; a proxy names its own in ``X-Forwarded-Proto``.
    """
    host = headers.get("host", "")
    if headers.get("x-forwarded-proto") in ("http", "https"):
        scheme = headers["x-forwarded-proto"]
    return f"{scheme}://{host}" if _HOST.fullmatch(host) else "/"


def idempotency_key(headers: Headers) -> str | None:
    """Return the key, if any. Raises: InvalidRequest if it is malformed or sent more than once."""
    values = headers.getlist(IDEMPOTENCY_HEADER)
    if len(values) > 1:
        raise InvalidRequest(IDEMPOTENCY_HEADER, "must not be sent more than once")
    if values and not re.fullmatch(IDEMPOTENCY_KEY_PATTERN, values[0]):
        raise InvalidRequest(
            IDEMPOTENCY_HEADER,
            f"must have 1 to {IDEMPOTENCY_KEY_CHARACTERS_MAX} printable ASCII characters",
        )
    return values[0] if values else None


def rate_limit_headers(states: Iterable[RateLimitState]) -> dict[str, str]:
    """Name the headers as OpenAI's clients do; times are whole seconds."""
    headers = {}
    for state in states:
        headers[f"x-ratelimit-limit-{state.what}"] = str(state.limit)
        headers[f"x-ratelimit-remaining-{state.what}"] = str(state.remaining)
        headers[f"x-ratelimit-reset-{state.what}"] = f"{math.ceil(state.reset_s)}s"
    return headers
