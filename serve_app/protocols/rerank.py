"""The default wire format of reranking.

It is lenient where real clients differ (nulls, extra fields, two forms of a document), and strict
where a guess could answer a different question: no value is converted.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from serve_app.domain.job import Job, pairs_of
from serve_app.domain.model import Outcome, Overflow
from serve_app.protocols.documents import Document, returned, text_of
from serve_app.protocols.json_body import shown
from serve_app.protocols.limits import Limits
from serve_app.protocols.rendering import with_results
from serve_app.protocols.rerank_schema import (
    RerankRequest,
    RerankResponse,
    RerankResult,
)
from serve_app.protocols.validation import validated
from serve_app.protocols.wire_format import (
    Envelope,
    Fields,
    ResolveModel,
    WireFormat,
    check_count,
    check_query,
    check_supported,
    check_unicode,
    job_of,
    meta,
    overflow_of,
    overflow_of_flag,
    relevant_spans,
    score_of,
    unknown_field_warnings,
    usage,
)

IGNORED = ("texts",)
"""With ``documents``, a request has the default form, even if it has ``texts``."""


@dataclass(frozen=True, slots=True)
class ParsedRerank:
    """A job and the options for its answer."""

    job: Job
    documents: Sequence[Document] | None
    """As sent, if the answer contains them."""

    raw_scores: bool
    min_score: float | None
    warnings: tuple[str, ...]


def parse(
    fields: Fields,
    limits: Limits,
    envelope: Envelope,
    resolve_model: ResolveModel,
) -> ParsedRerank:
    """Of ``limits``, only those on documents and query length are checked."""
    check_supported(fields, RerankRequest.model_fields, IGNORED)
    check_count("documents", fields.get("documents"), limits, "documents")
    request = validated(RerankRequest, fields)
    check_query("query", request.query, limits)
    check_unicode([("model", request.model or ""), ("query", request.query)])
    texts = [
        text_of(index, document, request.rank_fields)
        for index, document in enumerate(request.documents)
    ]
    job = job_of(
        request,
        envelope,
        resolve_model,
        pairs_of(request.query, texts),
        top_n=request.top_n,
        document_tokens_max=request.max_tokens_per_doc,
        overflow=_overflow(request),
        windows_max=limits.documents_per_request_max,
        document_windows_max=request.max_chunks_per_doc,
    )
    return ParsedRerank(
        job,
        request.documents if request.return_documents else None,
        bool(request.raw_scores),
        request.min_score,
        unknown_field_warnings(_unknown_fields(fields, request)),
    )


def render(outcome: Outcome, parsed: ParsedRerank) -> bytes:
    answer = RerankResponse(
        id=outcome.request_id,
        model=outcome.model,
        results=[],
        usage=usage(outcome),
        meta=meta(outcome, parsed.warnings),
    )
    return with_results(answer, "results", _results(outcome, parsed))


RERANK = WireFormat(parse, render)


def _overflow(request: RerankRequest) -> Overflow:
    of_chunks = None
    if request.max_chunks_per_doc:
        of_chunks = Overflow.TRUNCATE if request.max_chunks_per_doc == 1 else Overflow.CHUNK
    return overflow_of(
        {
            "overflow": Overflow(request.overflow) if request.overflow else None,
            "truncation": overflow_of_flag(truncation=request.truncation),
            "max_chunks_per_doc": of_chunks,
        }
    )


def _unknown_fields(fields: Fields, request: RerankRequest) -> Iterator[str]:
    yield from (shown(name) for name in fields if name not in RerankRequest.model_fields)
    if request.return_documents or request.rank_fields:  # These options use other fields.
        return
    for document in request.documents:
        if isinstance(document, dict) and document.get("text") is not None:
            for name, value in document.items():
                if name != "text" and value is not None:
                    yield f"documents[].{shown(name)}"


def _results(outcome: Outcome, parsed: ParsedRerank) -> Iterator[RerankResult]:
    for ranked in outcome.results:
        score = score_of(ranked, raw=parsed.raw_scores)
        if parsed.min_score is not None and score < parsed.min_score:
            continue
        result = RerankResult(index=ranked.index, relevance_score=score)
        if parsed.documents is not None:
            text = parsed.job.pairs[ranked.index].document
            result["document"] = returned(parsed.documents[ranked.index], text)
        if ranked.truncated:
            result["truncated"] = True
        if spans := relevant_spans(ranked, raw=parsed.raw_scores):
            result["relevant_spans"] = spans
        yield result
