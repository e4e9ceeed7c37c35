"""The wire format of ``/v1/ranking``, as in NVIDIA's NIM for reranking.

NVIDIA's client shows the ``detail`` of the default error body.
"""

from collections.abc import Iterator
from typing import Annotated, Literal, NotRequired

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict  # Pydantic needs it until Python 3.12.

from serve_app.domain.errors import InvalidRequest
from serve_app.domain.model import Outcome, Overflow
from serve_app.protocols.limits import Limits
from serve_app.protocols.rendering import with_results
from serve_app.protocols.string_ranking import (
    ParsedRanking,
    Ranking,
    RankingRequest,
    TopN,
    check_fields,
    parsed_ranking,
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
from serve_app.protocols.wire_schema import AnswerId, Meta, Truncated, Usage


class RankingText(BaseModel):
    """A query or a passage. Images are not supported."""

    model_config = ConfigDict(strict=True, extra="forbid")

    text: str


class NvidiaRequest(RankingRequest):
    """Passages to order by how well they answer a query, as clients of NVIDIA's NIM send them."""

    query: Annotated[RankingText, Field(description="The text to rank by; not blank.")]
    passages: Annotated[
        list[RankingText],
        Field(min_length=1, fail_fast=True, description="A text may be empty."),
    ]
    top_n: TopN = None
    top_k: Annotated[TopN, Field(description="Another name of `top_n`, which LiteLLM sends.")] = (
        None
    )
    truncate: Annotated[
        Literal["END", "NONE"] | None,
        Field(description="Whether to cut the end of passages that are too long, or refuse them."),
    ] = "END"


class PassageRank(TypedDict):
    """The logit of one passage."""

    index: Annotated[int, Field(ge=0, description="The passage's position in the request.")]
    logit: Annotated[float, Field(description="Any real number; higher is better.")]
    truncated: NotRequired[Truncated]


class NvidiaResponse(BaseModel):
    """The passages by relevance, best first. The charge is durable before the answer is sent."""

    id: AnswerId
    model: str
    rankings: list[PassageRank]
    usage: Usage
    meta: Meta


def parse(
    fields: Fields, limits: Limits, envelope: Envelope, resolve_model: ResolveModel
) -> ParsedRanking:
    check_fields(NvidiaRequest, fields, "passages", limits)
    request = validated(NvidiaRequest, fields)
    if request.top_n and request.top_k:
        raise InvalidRequest("top_k", "must not be sent together with top_n")
    ranking = Ranking(
        request,
        request.query.text,
        [passage.text for passage in request.passages],
        request.top_n or request.top_k,
        overflow=Overflow.ERROR if request.truncate == "NONE" else None,
        query_path="query.text",
        text_path="passages[{index}].text",
    )
    return parsed_ranking(ranking, fields, limits, envelope, resolve_model)


def render(outcome: Outcome, parsed: ParsedRanking) -> bytes:
    answer = NvidiaResponse(
        id=outcome.request_id,
        model=outcome.model,
        rankings=[],
        usage=usage(outcome),
        meta=meta(outcome, parsed.warnings),
    )
    return with_results(answer, "rankings", _rankings(outcome))


NVIDIA = WireFormat(parse, render)


def _rankings(outcome: Outcome) -> Iterator[PassageRank]:
    for ranked in outcome.results:
        rank = PassageRank(index=ranked.index, logit=ranked.logit)
        if ranked.truncated:
            rank["truncated"] = True
        yield rank
