"""The wire formats of Infinity: ``/infinity/rerank`` and ``/infinity/models``.

They have a prefix, because Infinity's requests look like those of ``/rerank``, but a document in an
answer is a string.
"""

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from serve_app.domain.model import Outcome
from serve_app.domain.model_card import ModelCard
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
    usage,
)
from serve_app.protocols.wire_schema import (
    AnswerId,
    Meta,
    RawScores,
    TruncationStrategy,
    Usage,
)

NO_MODEL = "default/not-specified"
"""Infinity's clients send it if the user names no model."""


class InfinityRequest(RankingRequest):
    """Documents to order by how well they answer a query, as Infinity's clients send them.

    The model `default/not-specified` is the default model.
    """

    query: Query
    documents: Strings
    top_n: TopN = None
    return_documents: Annotated[
        bool | None, Field(description="Whether each result contains its document.")
    ] = False
    raw_scores: RawScores = False
    truncation_strategy: TruncationStrategy = "longest_first"


class InfinityResponse(BaseModel):
    """The documents by relevance, best first. The charge is durable before the answer is sent."""

    id: AnswerId
    object: Literal["rerank"] = "rerank"
    model: str
    results: list[StringResult]
    usage: Usage
    meta: Meta


class InfinityErrorDetail(BaseModel):
    """The error in Infinity's variant of OpenAI's format."""

    message: str
    type: Annotated[str, Field(description="Family of the error.")]
    param: Annotated[str | None, Field(description="The request field at fault, if one is.")]
    code: Annotated[int, Field(description="The status of the response.")]


class InfinityError(BaseModel):
    """The reason for a failed request. Nothing was charged."""

    error: InfinityErrorDetail


class InfinityModel(BaseModel):
    """One served model."""

    id: str
    object: Literal["model"] = "model"
    owned_by: Annotated[
        Literal["infinity"], Field(description="Infinity's client accepts no other value.")
    ] = "infinity"
    created: Annotated[int, Field(description="Always 0.")] = 0
    backend: Annotated[str, Field(description="Where the model comes from.")]
    capabilities: list[Literal["rerank"]] = ["rerank"]
    stats: Annotated[dict[str, float], Field(description="Always empty.")] = {}


class InfinityModels(BaseModel):
    """Every model that the API key may use."""

    object: Literal["list"] = "list"
    data: list[InfinityModel]


def parse(
    fields: Fields, limits: Limits, envelope: Envelope, resolve_model: ResolveModel
) -> ParsedRanking:
    if fields.get("model") == NO_MODEL:
        fields = {name: value for name, value in fields.items() if name != "model"}
    check_fields(InfinityRequest, fields, "documents", limits)
    request = validated(InfinityRequest, fields)
    ranking = Ranking(
        request,
        request.query,
        request.documents,
        request.top_n,
        request.return_documents,
        request.raw_scores,
    )
    return parsed_ranking(ranking, fields, limits, envelope, resolve_model)


def render(outcome: Outcome, parsed: ParsedRanking) -> bytes:
    answer = InfinityResponse(
        id=outcome.request_id,
        model=outcome.model,
        results=[],
        usage=usage(outcome),
        meta=meta(outcome, parsed.warnings),
    )
    return with_results(answer, "results", string_results(outcome, parsed))


def render_problem(problem: Problem) -> tuple[int, bytes]:
    detail = InfinityErrorDetail(
        message=problem.error.public_message,
        type=problem.family,
        param=problem.error.where,
        code=problem.status,
    )
    return problem.status, InfinityError(error=detail).model_dump_json().encode()


def render_infinity_models(cards: Iterable[ModelCard]) -> bytes:
    models = [InfinityModel(id=card.id, backend=card.source) for card in cards]
    return InfinityModels(data=models).model_dump_json().encode()


INFINITY = WireFormat(parse, render, render_problem)
