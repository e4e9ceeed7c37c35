"""The OpenAPI description of one operation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from serve_app.domain.errors import (
    BodyTimeout,
    CompressedBody,
    InvalidRequest,
    NotFound,
    RerankError,
    TooLarge,
)
from serve_app.protocols.schemas import WireType

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one route."""

    method: str
    path: str
    name: str
    summary: str
    answer: WireType
    body: WireType | None = None
    parameters: Sequence[Json] = ()
    errors: Sequence[type[RerankError]] = (InvalidRequest,)
    media_types: Sequence[str] = ()
    """Response types besides JSON."""

    headers: Sequence[str] = ()
    """Headers of these responses."""


CHANGE_ERRORS = (InvalidRequest, NotFound, BodyTimeout, TooLarge, CompressedBody)
