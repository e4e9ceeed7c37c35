"""Types that the scoring wire formats share."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field
from typing_extensions import TypedDict  # Pydantic needs it until Python 3.12.

MODEL_CHARACTERS_MAX = 256

COUNT_MAX = 2_147_483_647
"""Largest number that a request may contain."""

ModelName = Annotated[
    str | None,
    Field(
        max_length=MODEL_CHARACTERS_MAX,
        description="An id or alias from `GET /v1/models`. Absent: the default model.",
    ),
]
RawScores = Annotated[
    bool | None,
    Field(description="Whether to return logits, which may be any real number, as scores."),
]
TruncationStrategy = Annotated[
    Literal["only_document", "longest_first"] | None,
    Field(description="How to truncate a pair that is longer than the model's maximum."),
]
MaxTokensPerDoc = Annotated[
    int | None,
    Field(
        ge=0,
        le=COUNT_MAX,
        description="Tokens to read of each document, if the model can read more. Absent or 0: as "
        "many as fit the model; with `overflow: chunk` all.",
    ),
]
OverflowMode = Annotated[
    Literal["truncate", "error", "chunk"] | None,
    Field(
        description="What to do with a document that does not fit the model with its query: cut "
        "it, refuse the request, or divide it into overlapping windows, each of which is charged "
        "as a document, and return its best window's score."
    ),
]
TruncationFlag = Annotated[
    bool | None,
    Field(description="False is `overflow: error`, true is `overflow: truncate`."),
]
Tier = Annotated[
    Literal["default", "flex", "priority"] | None,
    Field(description="`flex` costs less and gets the remaining capacity; `priority` goes first."),
]
Truncated = Annotated[
    Literal[True], Field(description="True if a text was truncated; else omitted.")
]


class RelevantSpan(TypedDict):
    """The window of a document that decided its score."""

    start: Annotated[int, Field(ge=0, description="Position of the first code point.")]
    end: Annotated[int, Field(ge=0, description="Position after the last code point.")]
    score: Annotated[float, Field(description="The score of the document, too.")]


RelevantSpans = Annotated[
    list[RelevantSpan],
    Field(description="With `overflow: chunk`, the best window; else omitted."),
]
AnswerId = Annotated[str, Field(description="Id of the request in the ledger.")]


class Usage(BaseModel):
    """Amount of computed work."""

    prompt_tokens: Annotated[int, Field(description="Tokens of all pairs, including queries.")]
    total_tokens: int
    documents: Annotated[
        int,
        Field(description="Number of pairs of a query and a document, or a window of a document."),
    ]
    search_units: Annotated[int, Field(description="Number of documents / 100, rounded up.")]


class ApiVersion(BaseModel):
    """The version of the wire format."""

    version: Literal["2"] = "2"


class BilledUnits(BaseModel):
    """The same amounts as integers, in the fields that Cohere's clients read."""

    search_units: int
    input_tokens: int
    total_tokens: int


class MetaTokens(BaseModel):
    """Token counts. Reranking generates no tokens."""

    input_tokens: int
    output_tokens: Literal[0] = 0


class Meta(BaseModel):
    """Metadata of an answer."""

    api_version: ApiVersion
    billed_units: BilledUnits
    tokens: MetaTokens
    charge_micro_dollars: Annotated[
        int, Field(description="Charge for this request, in millionths of a US dollar.")
    ]
    warnings: list[str]
