"""Limits on one request. The HTTP layer enforces them; ``GET /v1/models`` shows them to clients."""

from dataclasses import dataclass

from serve_app.domain.units import Seconds


@dataclass(frozen=True, slots=True)
class Limits:
    """All limits on the size and duration of a request."""

    body_bytes_max: int
    documents_per_request_max: int
    query_characters_max: int
    """Unicode code points."""

    request_timeout_s: Seconds
    """Default timeout of a request."""

    request_timeout_s_max: Seconds
    """Longest timeout that a request may ask for."""

    body_timeout_s: Seconds
    """Longest time for a body to arrive."""
