"""The wire format of ``/voyage/v1/rerank``.

It has a prefix, because some of Voyage's clients fail on an error body with more than ``detail``,
and nothing distinguishes them before the body is read.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from serve_app.domain.model import Outcome
from serve_app.protocols.limits import Limits
from serve_app.protocols.problem_body import Problem
from serve_app.protocols.rendering import with_results
from serve_app.protocols.string_ranking import (
    ParsedRanking,
    Query,
    Ranking,
    RankingRequest,
    StringResult,
    Strings,
    TopN,
    check_fields,
    parsed_ranking,
    string_results,
)
from serve_app.protocols.validation import validated
from serve_app.protocols.wire_format import (
    Envelope,
    Fields,
    ResolveModel,
    WireFormat,
    meta,
    overflow_of_flag,
    usage,
)
from serve_app.protocols.wire_schema import AnswerId, Meta, RawScores, Usage


class VoyageRequest(RankingRequest):
    """Documents to order by how well they answer a query, as Voyage's clients send them."""

    query: Query
    documents: Strings
    top_k: TopN = None
    return_documents: Annotated[
        bool | None, Field(description="Whether each result contains its document.")
    ] = False
    truncation: Annotated[
        bool | None,
        Field(description="Whether to truncate pairs that are too long, or else to refuse them."),
    ] = True
    raw_scores: RawScores = False


class VoyageResponse(BaseModel):
    """The documents by relevance, best first. The charge is durable before the answer is sent."""

    id: AnswerId
    object: Literal["list"] = "list"
    model: str
    data: list[StringResult]
    usage: Usage
    meta: Meta


class VoyageError(BaseModel):
    """The reason for a failed request. Nothing was charged."""

    detail: str


def parse(
    fields: Fields, limits: Limits, envelope: Envelope, resolve_model: ResolveModel
) -> ParsedRanking:
    check_fields(VoyageRequest, fields, "documents", limits)
    request = validated(VoyageRequest, fields)
    ranking = Ranking(
        request,
        request.query,
        request.documents,
        request.top_k,
        request.return_documents,
        request.raw_scores,
        overflow_of_flag(truncation=request.truncation),
    )
    return parsed_ranking(ranking, fields, limits, envelope, resolve_model)


def render(outcome: Outcome, parsed: ParsedRanking) -> bytes:
    answer = VoyageResponse(
        id=outcome.request_id,
        model=outcome.model,
        data=[],
        usage=usage(outcome),
        meta=meta(outcome, parsed.warnings),
    )
    return with_results(answer, "data", string_results(outcome, parsed))


def render_problem(problem: Problem) -> tuple[int, bytes]:
    body = VoyageError(detail=problem.error.public_message)
    return problem.status, body.model_dump_json().encode()


VOYAGE = WireFormat(parse, render, render_problem)
