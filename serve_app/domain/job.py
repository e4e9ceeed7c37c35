"""A parsed request, independent of its wire format."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from serve_app.domain.model import Overflow, ServiceTier, Truncation
from serve_app.domain.units import Instant, ModelId, RequestId, Seconds


class TextPair(NamedTuple):
    """A query and a document as text."""

    query: str
    document: str


def pairs_of(query: str, documents: Iterable[str]) -> tuple[TextPair, ...]:
    return tuple(TextPair(query, document) for document in documents)


@dataclass(frozen=True, slots=True)
class Idempotency:
    """What identifies a request and its repeats, besides the tenant."""

    key_sha256: bytes
    """Digest of the client's idempotency key."""

    request_sha256: bytes
    """Digest of the route and the body, which all repeats share."""


@dataclass(frozen=True, slots=True)
class Job:
    """A parsed request. In a rerank request, all pairs have the same query."""

    request_id: RequestId
    model: ModelId
    pairs: tuple[TextPair, ...]
    """At least one, in request order."""

    top_n: int | None
    """Number of results to return. ``None`` returns all."""

    truncation: Truncation
    timeout_s: Seconds
    deadline: Instant
    """``timeout_s`` after the request's headers were read."""

    document_tokens_max: int | None = None
    """Tokens read of each document; ``None`` means as many as fit the model, or with
    ``Overflow.CHUNK`` all."""

    overflow: Overflow = Overflow.TRUNCATE
    windows_max: int = 1
    """Most windows of all documents, with ``Overflow.CHUNK``."""

    document_windows_max: int | None = None
    """Most windows of one document; the rest of its text is not read. ``None`` means any number."""

    service_tier: ServiceTier = ServiceTier.DEFAULT
    idempotency: Idempotency | None = None
    query_field: str = "query"
    document_field: str = "documents[{index}]"
    """Request fields of a query and a document, for error messages. ``{index}`` is replaced by the
    pair's index."""

    @property
    def queries(self) -> dict[str, int]:
        """The distinct queries in request order, each with the index of its first pair."""
        first: dict[str, int] = {}
        for index, pair in enumerate(self.pairs):
            first.setdefault(pair.query, index)
        return first

    def query_path(self, index: int) -> str:
        """Return the request field of the query of the pair at ``index``."""
        return self.query_field.format(index=index)

    def document_path(self, index: int) -> str:
        return self.document_field.format(index=index)
