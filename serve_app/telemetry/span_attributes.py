"""The attributes of spans, where possible by the conventions of OpenTelemetry and OpenInference."""

from collections.abc import Iterator

from serve_app.domain.job import Job
from serve_app.domain.model import Outcome, Portion
from serve_app.domain.ranking import relevance_score
from serve_app.domain.units import ModelId
from serve_app.telemetry.logs import RequestRecord
from serve_app.telemetry.traces import Value

DOCUMENTS_MAX = 50
CHARACTERS_MAX = 1_000
"""Most documents in a span, and most characters of each text, because collectors limit its size."""

Attributes = Iterator[tuple[str, Value]]


def of_request(record: RequestRecord, status: int, code: str, model: ModelId | None) -> Attributes:
    """Yield what is known of a request that has ended, without its texts.

    ``model``: the requested one if it is served. Any other name is the client's own text.
    """
    yield "openinference.span.kind", "RERANKER"
    yield "gen_ai.operation.name", "rerank"
    yield "http.request.method", "POST"
    yield "url.path", record.path
    yield "http.response.status_code", status
    yield "rerank.request_id", record.request_id
    if code != "ok":
        yield "error.type", code
    if record.caller is not None:
        yield "rerank.tenant", record.caller.tenant
        yield "rerank.key_id", record.caller.key_id
    if model is not None:
        yield "gen_ai.request.model", model
        yield "reranker.model_name", model
    if record.job is not None:
        yield "rerank.documents", len(record.job.pairs)
        if record.job.top_n is not None:
            yield "reranker.top_k", record.job.top_n
    if record.outcome is not None and record.outcome.replayed:
        yield "rerank.repeats", record.outcome.request_id
    elif record.outcome is not None:
        yield "gen_ai.usage.input_tokens", record.outcome.tokens
        yield "rerank.charge_micro_dollars", record.outcome.charge


def of_texts(job: Job, outcome: Outcome | None) -> Attributes:
    """Of several queries, only the first is included."""
    yield "reranker.query", job.pairs[0].query[:CHARACTERS_MAX]
    for index, pair in enumerate(job.pairs[:DOCUMENTS_MAX]):
        yield from _document(f"reranker.input_documents.{index}", index, pair.document)
    results = outcome.results[:DOCUMENTS_MAX] if outcome is not None else ()
    for place, each in enumerate(results):
        name = f"reranker.output_documents.{place}"
        yield from _document(name, each.index, job.pairs[each.index].document)
        yield f"{name}.document.score", relevance_score(each.logit)


def _document(name: str, index: int, text: str) -> Attributes:
    yield f"{name}.document.id", str(index)
    yield f"{name}.document.content", text[:CHARACTERS_MAX]


def of_portion(portion: Portion) -> Attributes:
    yield "rerank.pairs", len(portion.lengths)
    yield "rerank.tokens", portion.tokens
