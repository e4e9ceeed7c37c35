"""The wire format of ``/v1/score`` as types: what `serve_app.protocols.score` reads and writes."""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from serve_app.protocols.wire_schema import (
    AnswerId,
    Meta,
    ModelName,
    RawScores,
    Tier,
    Truncated,
    TruncationStrategy,
    Usage,
)


def _two_entries(value: object) -> object:
    if isinstance(value, list) and len(value) == 2:
        return value
    raise PydanticCustomError("pair", "not a pair")  # Worded in `validation`.


QueryAndPassage = Annotated[
    list[str], Field(min_length=2, max_length=2), BeforeValidator(_two_entries)
]


class ScoreRequest(BaseModel):
    """Pairs of a query and a passage to score, each by itself.

    For every optional field, null means absent. Unknown fields are ignored and named in
    ``meta.warnings``, except those that would change the scores: they are refused.
    """

    model_config = ConfigDict(strict=True)

    model: ModelName = None
    pairs: Annotated[
        list[QueryAndPassage],
        Field(
            min_length=1,
            fail_fast=True,
            description="Each `[query, passage]`; queries may differ and are not blank, a passage "
            "may be empty.",
        ),
    ]
    raw_scores: RawScores = False
    truncation_strategy: TruncationStrategy = "only_document"
    service_tier: Tier = "default"


class PairScore(BaseModel):
    """The score of one pair."""

    object: Literal["score"] = "score"
    index: Annotated[int, Field(ge=0, description="The pair's position in the request.")]
    score: Annotated[
        float, Field(description="From 0 to 1, higher is better; the logit with `raw_scores`.")
    ]
    truncated: Truncated = None


class ScoreResponse(BaseModel):
    """The scores in the order of the request's pairs. Its charge is durable before it is sent."""

    id: AnswerId
    object: Literal["list"] = "list"
    model: str
    data: list[PairScore]
    usage: Usage
    meta: Meta
