"""The wire format of ``/v1/score``: pairs of a query and a passage, answered in request order."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import starmap

from serve_app.domain.job import Job, TextPair
from serve_app.domain.model import Outcome
from serve_app.protocols.json_body import shown
from serve_app.protocols.limits import Limits
from serve_app.protocols.score_schema import PairScore, ScoreRequest, ScoreResponse
from serve_app.protocols.validation import validated
from serve_app.protocols.wire_format import (
    Envelope,
    ResolveModel,
    WireFormat,
    check_count,
    check_query,
    check_supported,
    check_unicode,
    job_of,
    meta,
    read_fields,
    score_of,
    unknown_field_warnings,
    usage,
)


@dataclass(frozen=True, slots=True)
class ParsedScore:
    """A job and the options for its answer."""

    job: Job
    raw_scores: bool
    warnings: tuple[str, ...]
    """Sentences about ignored parts of the request."""


def parse(
    body: bytes, limits: Limits, envelope: Envelope, resolve_model: ResolveModel
) -> ParsedScore:
    """Parse a request. See `serve_app.protocols.wire_format.WireFormat`.

    ``limits``: the limit on documents applies to the pairs, and that on query length to each query.
    """
    fields = read_fields(body)
    check_supported(fields, ScoreRequest.model_fields)
    check_count("pairs", fields.get("pairs"), limits)
    request = validated(ScoreRequest, fields)
    pairs = tuple(starmap(TextPair, request.pairs))
    job = job_of(
        request,
        envelope,
        resolve_model,
        pairs,
        document_tokens_max=request.max_tokens_per_doc,
        query_field="pairs[{index}][0]",
    )
    for query, index in job.queries.items():
        check_query(job.query_path(index), query, limits)
    check_unicode(_texts(request))
    unknown = (shown(name) for name in fields if name not in ScoreRequest.model_fields)
    return ParsedScore(
        job, bool(request.raw_scores), envelope.warnings + unknown_field_warnings(unknown)
    )


def render(outcome: Outcome, parsed: ParsedScore) -> bytes:
    """Return the answer to ``parsed`` as JSON in UTF-8."""
    answer = ScoreResponse(
        id=outcome.request_id,
        model=outcome.model,
        data=[
            PairScore(
                index=ranked.index,
                score=score_of(ranked, raw=parsed.raw_scores),
                truncated=True if ranked.truncated else None,
            )
            for ranked in sorted(outcome.results, key=lambda ranked: ranked.index)
        ],
        usage=usage(outcome),
        meta=meta(outcome, parsed.warnings),
    )
    return answer.model_dump_json(exclude_none=True).encode()


SCORE = WireFormat(parse, render)


def _texts(request: ScoreRequest) -> Iterator[tuple[str, str]]:
    """Yield each text of the request after its path."""
    yield "model", request.model or ""
    for index, pair in enumerate(request.pairs):
        for place, text in enumerate(pair):
            yield f"pairs[{index}][{place}]", text
