"""The default wire format of reranking: bytes to a `Job`, an `Outcome` to bytes.

Lenient where real clients differ (nulls, extra fields, two forms of a document), strict where a
guess could answer another question than the one asked: no value is ever converted to fit its type.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from serve_app.domain.errors import InvalidRequest, TooLarge
from serve_app.domain.job import Job, pairs_of
from serve_app.domain.model import Outcome, RankedDocument, ServiceTier, Truncation
from serve_app.domain.ranking import relevance_score
from serve_app.domain.units import Instant, ModelId, RequestId, Seconds
from serve_app.protocols.json_body import read_object, shown, unicode_fault
from serve_app.protocols.limits import Limits
from serve_app.protocols.rerank_schema import (
    ApiVersion,
    BilledUnits,
    DocumentText,
    Meta,
    MetaTokens,
    RerankRequest,
    RerankResponse,
    RerankResult,
    Usage,
)
from serve_app.protocols.validation import validated

DOCUMENTS_PER_SEARCH_UNIT = 100
"""Cohere's definition; clients multiply it by their own price lists."""

WARNINGS_MAX = 20


@dataclass(frozen=True, slots=True)
class Envelope:
    """What of a job does not stand in its body."""

    request_id: RequestId
    timeout_s: Seconds
    deadline: Instant
    warnings: tuple[str, ...] = ()
    """Sentences about what was ignored outside of the body."""


@dataclass(frozen=True, slots=True)
class ParsedRerank:
    """The job, and how its answer is to be written."""

    job: Job
    return_documents: bool
    raw_scores: bool
    warnings: tuple[str, ...]
    """Sentences about what was ignored."""


def parse(
    body: bytes,
    limits: Limits,
    envelope: Envelope,
    resolve_model: Callable[[str | None], ModelId],
) -> ParsedRerank:
    """Read a request.

    Args:
        body: As received; anything at all.
        limits: Of these, the number of documents and the length of the query are checked here.
        envelope: Becomes part of the job.
        resolve_model: From the client's ``model``, ``None`` when absent, to an id.

    Raises:
        InvalidRequest: Names the field at fault, such as ``documents[3].text``.
        TooLarge: There are too many documents.
    """
    fields = {name: value for name, value in read_object(body).items() if value is not None}
    _check_document_count(fields.get("documents"), limits)
    request = validated(RerankRequest, fields)
    _check_texts(request, limits)
    job = Job(
        request_id=envelope.request_id,
        model=resolve_model(request.model),
        pairs=pairs_of(request.query, map(_text, request.documents)),
        top_n=request.top_n,
        truncation=Truncation(request.truncation_strategy or Truncation.ONLY_DOCUMENT),
        timeout_s=envelope.timeout_s,
        deadline=envelope.deadline,
        service_tier=ServiceTier(request.service_tier or ServiceTier.DEFAULT),
    )
    return ParsedRerank(
        job,
        bool(request.return_documents),
        bool(request.raw_scores),
        envelope.warnings + _warnings(fields),
    )


def render(outcome: Outcome, parsed: ParsedRerank) -> bytes:
    """Write the answer to ``parsed``, as JSON in UTF-8."""
    search_units = -(-outcome.documents // DOCUMENTS_PER_SEARCH_UNIT)
    answer = RerankResponse(
        id=outcome.request_id,
        model=outcome.model,
        results=[_result(ranked, parsed) for ranked in outcome.results],
        usage=Usage(
            prompt_tokens=outcome.tokens,
            total_tokens=outcome.tokens,
            documents=outcome.documents,
            search_units=search_units,
        ),
        meta=Meta(
            api_version=ApiVersion(),
            billed_units=BilledUnits(
                search_units=search_units,
                input_tokens=outcome.tokens,
                total_tokens=outcome.tokens,
            ),
            tokens=MetaTokens(input_tokens=outcome.tokens),
            charge_micro_dollars=outcome.charge,
            warnings=list(parsed.warnings),
        ),
    )
    return answer.model_dump_json(exclude_none=True).encode()


def _check_document_count(documents: object, limits: Limits) -> None:
    """Before the documents themselves are looked at, which may take long."""
    if isinstance(documents, list) and len(documents) > limits.documents_per_request_max:
        raise TooLarge("documents", limits.documents_per_request_max, "documents")


def _check_texts(request: RerankRequest, limits: Limits) -> None:
    if not request.query.strip():
        raise InvalidRequest("query", "must not be blank")
    if len(request.query) > limits.query_characters_max:
        raise InvalidRequest("query", f"must have at most {limits.query_characters_max} characters")
    for path, text in _texts(request):
        if fault := unicode_fault(text):
            raise InvalidRequest(path, fault)


def _texts(request: RerankRequest) -> Iterator[tuple[str, str]]:
    """Every text of the request with its path."""
    yield "model", request.model or ""
    yield "query", request.query
    for index, document in enumerate(request.documents):
        path = f"documents[{index}]"
        yield path if isinstance(document, str) else f"{path}.text", _text(document)


def _text(document: str | DocumentText) -> str:
    return document if isinstance(document, str) else document.text


def _warnings(fields: dict[str, object]) -> tuple[str, ...]:
    """One sentence for each field we do not know; past ``WARNINGS_MAX`` of them, just '...'."""
    names: dict[str, None] = {}  # Keeps the order of arrival, where a set would not.
    for name in _unknown_fields(fields):
        if len(names) == WARNINGS_MAX and name not in names:
            names["..."] = None
            break
        names[name] = None
    return tuple(f"The field '{name}' is unknown and was ignored." for name in names)


def _unknown_fields(fields: dict[str, object]) -> Iterator[str]:
    yield from (shown(name) for name in fields if name not in RerankRequest.model_fields)
    documents = fields["documents"]
    assert isinstance(documents, list)
    for document in documents:
        if isinstance(document, dict):
            for name, value in document.items():
                if name != "text" and value is not None:
                    yield f"documents[].{shown(name)}"


def _result(ranked: RankedDocument, parsed: ParsedRerank) -> RerankResult:
    score = ranked.logit if parsed.raw_scores else relevance_score(ranked.logit)
    return RerankResult(
        index=ranked.index,
        relevance_score=score,
        document=DocumentText(text=parsed.job.pairs[ranked.index].document)
        if parsed.return_documents
        else None,
        truncated=True if ranked.truncated else None,
    )
