"""Types of the wire format of ``/v1/score``."""

from typing import Annotated, Literal, NotRequired

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict  # Pydantic needs it until Python 3.12.

from serve_app.protocols.wire_schema import (
    AnswerId,
    MaxTokensPerDoc,
    Meta,
    ModelName,
    OverflowMode,
    RawScores,
    RelevantSpans,
    Tier,
    Truncated,
    TruncationFlag,
    TruncationStrategy,
    Usage,
)


def _two_entries(value: object) -> object:
    if isinstance(value, list) and len(value) == 2:
        return value
    raise PydanticCustomError("pair", "not a pair")  # `validation` has the client's message.


QueryAndPassage = Annotated[
    list[str], Field(min_length=2, max_length=2), BeforeValidator(_two_entries)
]


def _as_list(value: object) -> object:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return value
    raise PydanticCustomError("texts", "neither a string nor a list")


NonEmptyList = Annotated[list[str], Field(min_length=1, fail_fast=True)]
Texts = Annotated[
    NonEmptyList,
    BeforeValidator(_as_list, json_schema_input_type=str | NonEmptyList),
]
Queries = Annotated[
    Texts, Field(description="One query, or as many as there are passages; none may be blank.")
]
Passages = Annotated[Texts, Field(description="The passages, which may be empty.")]


class ScoreRequest(BaseModel):
    """Pairs of a query and a passage. Each is scored independently.

    For every optional field, null means absent. Unknown fields are ignored and named in
    ``meta.warnings``, except fields that would change the scores: they are refused.
    """

    model_config = ConfigDict(strict=True)

    model: ModelName = None
    pairs: Annotated[
        list[QueryAndPassage],
        Field(
            min_length=1,
            fail_fast=True,
            description="Each is `[query, passage]`. Queries may differ and must not be blank; a "
            "passage may be empty.",
        ),
    ]
    raw_scores: RawScores = False
    truncation_strategy: TruncationStrategy = "only_document"
    overflow: OverflowMode = None
    truncation: TruncationFlag = None
    max_tokens_per_doc: MaxTokensPerDoc = None
    service_tier: Tier = "default"


class TextsRequest(BaseModel):
    """Base of vLLM's forms: one query with every passage, or each query with its own passage."""

    model_config = ConfigDict(strict=True)

    model: ModelName = None
    raw_scores: RawScores = False
    truncation_strategy: TruncationStrategy = "only_document"
    overflow: OverflowMode = None
    truncation: TruncationFlag = None
    max_tokens_per_doc: MaxTokensPerDoc = None
    service_tier: Tier = "default"


class ScoreTexts(TextsRequest):
    """Texts in vLLM's first form."""

    text_1: Queries
    text_2: Passages


class ScoreData(TextsRequest):
    """Texts in vLLM's form ``data_1`` and ``data_2``."""

    data_1: Queries
    data_2: Passages


class ScoreDocuments(TextsRequest):
    """Queries and documents."""

    queries: Queries
    documents: Passages


class ScoreItems(TextsRequest):
    """Queries and items."""

    queries: Queries
    items: Passages


class PairScore(TypedDict):
    """The score of one pair."""

    object: Literal["score"]
    index: Annotated[int, Field(ge=0, description="The pair's position in the request.")]
    score: Annotated[
        float, Field(description="From 0 to 1, higher is better. With `raw_scores`: the logit.")
    ]
    truncated: NotRequired[Truncated]
    relevant_spans: NotRequired[RelevantSpans]


class ScoreResponse(BaseModel):
    """The scores in request order. The charge is durable before the answer is sent."""

    id: AnswerId
    object: Literal["list"] = "list"
    created: Annotated[int, Field(description="Time of the request in UNIX seconds.")]
    model: str
    data: list[PairScore]
    usage: Usage
    meta: Meta
