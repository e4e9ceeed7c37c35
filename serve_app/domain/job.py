"""One parsed request, whichever wire format it came in."""

from collections.abc import Iterable
from dataclasses import dataclass

from serve_app.domain.model import ServiceTier, Truncation
from serve_app.domain.units import Instant, ModelId, RequestId, Seconds


@dataclass(frozen=True, slots=True)
class TextPair:
    """A query and a document, as text; the model scores how well the document answers."""

    query: str
    document: str


def pairs_of(query: str, documents: Iterable[str]) -> tuple[TextPair, ...]:
    """``query`` with each of ``documents``, in their order."""
    return tuple(TextPair(query, document) for document in documents)


@dataclass(frozen=True, slots=True)
class Job:
    """One parsed request: the pairs to score. In a rerank request all have the same query."""

    request_id: RequestId
    model: ModelId
    pairs: tuple[TextPair, ...]
    """At least one, in request order."""

    top_n: int | None
    """How many results to answer; ``None`` means all."""

    truncation: Truncation
    timeout_s: Seconds
    deadline: Instant
    """``timeout_s`` after the request's headers were read."""

    service_tier: ServiceTier = ServiceTier.DEFAULT
    query_field: str = "query"
    """The request field that holds a query, for errors; ``{index}`` stands for its pair's index."""

    @property
    def queries(self) -> dict[str, int]:
        """Every distinct query, in request order, with the index of its first pair."""
        first: dict[str, int] = {}
        for index, pair in enumerate(self.pairs):
            first.setdefault(pair.query, index)
        return first

    def query_path(self, index: int) -> str:
        """The request field that holds the query of the pair at ``index``."""
        return self.query_field.format(index=index)
