"""A parsed request, independent of its wire format."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from serve_app.domain.model import Overflow, ServiceTier, Truncation
from serve_app.domain.units import Instant, ModelId, RequestId, Seconds


class TextPair(NamedTuple):
    """A query and a document."""

    query: str
    document: str


def pairs_of(query: str, documents: Iterable[str]) -> tuple[TextPair, ...]:
    return tuple(TextPair(query, document) for document in documents)


@dataclass(frozen=True, slots=True)
class Idempotency:
    """What a tenant's request and its repeats share."""

    key_sha256: bytes
    request_sha256: bytes
    """Digest of the route and the body."""


@dataclass(frozen=True, slots=True)
class Job:
    """A parsed request. In a rerank request, all pairs have the same query."""

    request_id: RequestId
    model: ModelId
    pairs: tuple[TextPair, ...]
    """At least one, in request order."""

    top_n: int | None
    """``None`` returns all."""

    truncation: Truncation
    timeout_s: Seconds
    deadline: Instant
    """``timeout_s`` after the request's headers were read."""

    document_tokens_max: int | None = None
    """Tokens read of each document; ``None`` means as many as fit, or all with
    ``Overflow.CHUNK``."""

    overflow: Overflow = Overflow.TRUNCATE
    windows_max: int = 1
    """Of all documents, with ``Overflow.CHUNK``."""

    document_windows_max: int | None = None
    """Most windows of one document, the rest of which is not read; ``None`` means any number."""

    service_tier: ServiceTier = ServiceTier.DEFAULT
    idempotency: Idempotency | None = None
    query_field: str = "query"
    document_field: str = "documents[{index}]"
    """Field paths for error messages, with the pair's index in place of ``{index}``."""

    @property
    def queries(self) -> dict[str, int]:
        """Each distinct query with the index of its first pair."""
        first: dict[str, int] = {}
        for index, pair in enumerate(self.pairs):
            first.setdefault(pair.query, index)
        return first

    def query_path(self, index: int) -> str:
        return self.query_field.format(index=index)

    def document_path(self, index: int) -> str:
        return self.document_field.format(index=index)
