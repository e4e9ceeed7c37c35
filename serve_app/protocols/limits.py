"""What one request may ask for. Enforced at the edge, told to clients by ``GET /v1/models``."""

from dataclasses import dataclass

from serve_app.domain.units import Seconds


@dataclass(frozen=True, slots=True)
class Limits:
    """Every limit that a client can run into by the size or the patience of a request."""

    body_bytes_max: int
    documents_per_request_max: int
    query_characters_max: int
    """In Unicode code points."""

    request_timeout_s: Seconds
    """What a request gets when it asks for nothing else."""

    request_timeout_s_max: Seconds
    """The most that a request may ask for."""

    body_timeout_s: Seconds
    """How long a body may take to arrive."""
