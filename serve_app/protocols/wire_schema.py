"""Types that the wire formats of scoring share: options of a request, parts of an answer."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

MODEL_CHARACTERS_MAX = 256

ModelName = Annotated[
    str | None,
    Field(
        max_length=MODEL_CHARACTERS_MAX,
        description="An id or alias from `GET /v1/models`; absent: the default model.",
    ),
]
RawScores = Annotated[
    bool | None,
    Field(description="Whether scores are the model's logits: any real numbers."),
]
TruncationStrategy = Annotated[
    Literal["only_document", "longest_first"] | None,
    Field(description="What is cut when query and document are longer than the model reads."),
]
Tier = Annotated[
    Literal["default", "flex", "priority"] | None,
    Field(description="`flex` costs less and takes what capacity is left; `priority` goes first."),
]
Truncated = Annotated[
    Literal[True] | None, Field(description="True if a text was cut; else omitted.")
]
AnswerId = Annotated[str, Field(description="Names the request in the ledger.")]


class Usage(BaseModel):
    """What was computed."""

    prompt_tokens: Annotated[int, Field(description="Tokens of every pair, query included.")]
    total_tokens: int
    documents: Annotated[int, Field(description="Pairs of a query and a document.")]
    search_units: Annotated[int, Field(description="One for each 100 documents begun.")]


class ApiVersion(BaseModel):
    """The version of the wire format."""

    version: Literal["2"] = "2"


class BilledUnits(BaseModel):
    """The same amounts, where Cohere's clients look for them. Integers."""

    search_units: int
    input_tokens: int
    total_tokens: int


class MetaTokens(BaseModel):
    """Reranking writes no tokens."""

    input_tokens: int
    output_tokens: Literal[0] = 0


class Meta(BaseModel):
    """About the answer rather than in it."""

    api_version: ApiVersion
    billed_units: BilledUnits
    tokens: MetaTokens
    charge_micro_dollars: Annotated[
        int, Field(description="What this request cost, in millionths of a US dollar.")
    ]
    warnings: list[str]
