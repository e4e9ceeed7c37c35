"""Types of the default wire format.

They are a superset of the formats of the Cohere, Jina, vLLM and OpenAI client families.
"""

from typing import Annotated, Literal, NotRequired

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, WithJsonSchema
from typing_extensions import TypedDict  # Pydantic needs it until Python 3.12.

from serve_app.protocols.wire_schema import (
    COUNT_MAX,
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

# `serve_app.protocols.documents` checks the fields.
DocumentObject = Annotated[
    dict[str, object],
    WithJsonSchema(
        {
            "type": "object",
            "properties": {"text": {"type": ["string", "null"]}},
            "additionalProperties": True,
        }
    ),
]


def _document_kind(value: object) -> str:
    return "object" if isinstance(value, dict) else "string"


# Pydantic's default discriminator reports the errors of both forms.
Document = Annotated[
    Annotated[str, Tag("string")] | Annotated[DocumentObject, Tag("object")],
    Discriminator(_document_kind),
]


class RerankRequest(BaseModel):
    """Documents to order by how well they answer a query.

    For every optional field, null means absent. Unknown fields are ignored and named in
    ``meta.warnings``, except fields that would change the answer: they are refused.
    """

    model_config = ConfigDict(strict=True)

    model: ModelName = None
    query: Annotated[str, Field(description="The text to rank documents by; not blank.")]
    documents: Annotated[
        list[Document],
        Field(
            min_length=1,
            fail_fast=True,
            description="Strings or objects. A text may be empty. An object's fields are kept in "
            "the answer.",
        ),
    ]
    top_n: Annotated[
        int | None,
        Field(ge=0, le=COUNT_MAX, description="Number of results to return. Absent or 0: all."),
    ] = None
    min_score: Annotated[
        float | None,
        Field(
            allow_inf_nan=False,
            description="Results with a lower `relevance_score` are left out after `top_n` is "
            "applied. The charge stays the same.",
        ),
    ] = None
    return_documents: Annotated[
        bool | None, Field(description="Whether each result contains its document.")
    ] = False
    rank_fields: Annotated[
        list[str] | None,
        Field(
            max_length=100,
            description="Fields of objects to read, in this order. Default: `text`, or all fields "
            "of an object without it.",
        ),
    ] = None
    raw_scores: RawScores = False
    truncation_strategy: TruncationStrategy = "only_document"
    overflow: OverflowMode = None
    truncation: TruncationFlag = None
    max_chunks_per_doc: Annotated[
        int | None,
        Field(
            ge=0,
            le=COUNT_MAX,
            description="Above 1: `overflow: chunk` with at most this number of windows for each "
            "document. 1: `overflow: truncate`. Absent or 0: no limit.",
        ),
    ] = None
    max_tokens_per_doc: MaxTokensPerDoc = None
    service_tier: Tier = "default"


class RerankResult(TypedDict):
    """The result for one document."""

    index: Annotated[int, Field(ge=0, description="The document's position in the request.")]
    relevance_score: Annotated[
        float, Field(description="From 0 to 1, higher is better. With `raw_scores`: the logit.")
    ]
    document: NotRequired[
        Annotated[
            DocumentObject,
            Field(
                description="The document as an object, with all its fields and a `text`. Only "
                "present with `return_documents`."
            ),
        ]
    ]
    truncated: NotRequired[Truncated]
    relevant_spans: NotRequired[RelevantSpans]


class RerankResponse(BaseModel):
    """The documents by relevance, best first. The charge is durable before the answer is sent."""

    id: AnswerId
    object: Literal["list"] = "list"
    model: str
    results: list[RerankResult]
    usage: Usage
    meta: Meta
