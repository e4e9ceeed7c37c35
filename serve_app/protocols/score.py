"""The wire format of ``/v1/score``: pairs of a query and a passage, answered in request order.

A request has the field ``pairs``, or the texts in one of vLLM's forms: one query for all passages,
or as many queries as passages.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, starmap

from serve_app.domain.errors import InvalidRequest
from serve_app.domain.job import Job, TextPair, pairs_of
from serve_app.domain.model import Outcome, Overflow
from serve_app.protocols.json_body import shown
from serve_app.protocols.limits import Limits
from serve_app.protocols.rendering import with_results
from serve_app.protocols.score_schema import (
    PairScore,
    ScoreData,
    ScoreDocuments,
    ScoreItems,
    ScoreRequest,
    ScoreResponse,
    ScoreTexts,
    TextsRequest,
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

FORMS: Mapping[tuple[str, ...], type[ScoreRequest | TextsRequest]] = {
    ("pairs",): ScoreRequest,
    ("text_1", "text_2"): ScoreTexts,
    ("queries", "documents"): ScoreDocuments,
    ("queries", "items"): ScoreItems,
    ("data_1", "data_2"): ScoreData,
}
"""Request types by the fields that contain the texts."""

TEXT_FIELDS = frozenset(name for form in FORMS for name in form)


@dataclass(frozen=True, slots=True)
class ParsedScore:
    """A job and the options for its answer."""

    job: Job
    raw_scores: bool
    warnings: tuple[str, ...]


def parse(
    fields: Fields, limits: Limits, envelope: Envelope, resolve_model: ResolveModel
) -> ParsedScore:
    """The limit on documents applies to the pairs, that on query length to each query."""
    names = _form(fields)
    kind = FORMS[names]
    check_supported(fields, kind.model_fields)
    for name in names:
        check_count(name, fields.get(name), limits, "pairs" if name == "pairs" else "texts")
    request = validated(kind, fields)
    if isinstance(request, ScoreRequest):
        pairs, query_field = tuple(starmap(TextPair, request.pairs)), "pairs[{index}][0]"
        document_field = "pairs[{index}][1]"
        texts = _texts_of_pairs(request.pairs)
    else:
        pairs, query_field = _paired(fields, request, names)
        document_field = names[1] + "[{index}]"
        texts = _texts_of_lists(request, names)
    job = job_of(
        request,
        envelope,
        resolve_model,
        pairs,
        document_tokens_max=request.max_tokens_per_doc,
        overflow=overflow_of(
            {
                "overflow": Overflow(request.overflow) if request.overflow else None,
                "truncation": overflow_of_flag(truncation=request.truncation),
            }
        ),
        windows_max=limits.documents_per_request_max,
        query_field=query_field,
        document_field=document_field,
    )
    for query, index in job.queries.items():
        check_query(job.query_path(index), query, limits)
    check_unicode(chain([("model", request.model or "")], texts))
    unknown = (shown(name) for name in fields if name not in kind.model_fields)
    return ParsedScore(job, bool(request.raw_scores), unknown_field_warnings(unknown))


def render(outcome: Outcome, parsed: ParsedScore) -> bytes:
    answer = ScoreResponse(
        id=outcome.request_id,
        created=outcome.created_at // 1_000,
        model=outcome.model,
        data=[],
        usage=usage(outcome),
        meta=meta(outcome, parsed.warnings),
    )
    return with_results(answer, "data", _scores(outcome, parsed))


SCORE = WireFormat(parse, render)


def _scores(outcome: Outcome, parsed: ParsedScore) -> Iterator[PairScore]:
    for ranked in sorted(outcome.results, key=lambda ranked: ranked.index):
        score = score_of(ranked, raw=parsed.raw_scores)
        result = PairScore(object="score", index=ranked.index, score=score)
        if ranked.truncated:
            result["truncated"] = True
        if spans := relevant_spans(ranked, raw=parsed.raw_scores):
            result["relevant_spans"] = spans
        yield result


def _form(fields: Fields) -> tuple[str, ...]:
    """Return the names of the fields that contain the texts.

    Raises: InvalidRequest for fields of several forms.
    """
    sent = [name for name in fields if name in TEXT_FIELDS]
    if not sent or sent == ["pairs"]:
        return ("pairs",)
    best = max(FORMS, key=lambda form: (sent[0] in form, sum(name in form for name in sent)))
    for name in sent:
        if name not in best:
            raise InvalidRequest(name, f"cannot be combined with {' and '.join(best)}")
    return best


def _paired(
    fields: Fields, request: TextsRequest, names: tuple[str, ...]
) -> tuple[tuple[TextPair, ...], str]:
    """Return the pairs of a request in one of vLLM's forms, and the path of their queries.

    Raises: InvalidRequest if there are neither one query nor as many as passages.
    """
    first, second = names
    queries, passages = _lists(request, names)
    if len(queries) == 1:
        path = first if isinstance(fields[first], str) else f"{first}[0]"
        return pairs_of(queries[0], passages), path
    if len(queries) != len(passages):
        raise InvalidRequest(
            first,
            f"must have one text, or as many as {second} has ({len(passages)}), "
            f"but has {len(queries)}",
        )
    return tuple(map(TextPair, queries, passages)), first + "[{index}]"


def _lists(request: TextsRequest, names: Iterable[str]) -> list[list[str]]:
    return [getattr(request, name) for name in names]


def _texts_of_pairs(pairs: Iterable[list[str]]) -> Iterator[tuple[str, str]]:
    for index, pair in enumerate(pairs):
        for place, text in enumerate(pair):
            yield f"pairs[{index}][{place}]", text


def _texts_of_lists(request: TextsRequest, names: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for name, texts in zip(names, _lists(request, names), strict=True):
        for index, text in enumerate(texts):
            yield f"{name}[{index}]", text
