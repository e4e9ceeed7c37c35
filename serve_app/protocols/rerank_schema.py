"""The default wire format as types: what `serve_app.protocols.rerank` reads and writes.

A superset of what the Cohere, Jina, vLLM and OpenAI client families read, so that they work with
nothing but another base URL. The OpenAPI page is generated from these classes.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

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

TOP_N_MAX = 2_147_483_647


class DocumentText(BaseModel):
    """A document as an object; any other field is ignored with a warning."""

    model_config = ConfigDict(strict=True)

    text: str


def _document_kind(value: object) -> str:
    return "object" if isinstance(value, dict | DocumentText) else "string"


# Told apart by hand: pydantic's own choice reports the faults of both forms at once.
Document = Annotated[
    Annotated[str, Tag("string")] | Annotated[DocumentText, Tag("object")],
    Discriminator(_document_kind),
]


class RerankRequest(BaseModel):
    """Documents to order by how well they answer a query.

    For every optional field, null means absent. Unknown fields are ignored and named in
    ``meta.warnings``.
    """

    model_config = ConfigDict(strict=True)

    model: ModelName = None
    query: Annotated[str, Field(description="What the documents should answer; not blank.")]
    documents: Annotated[
        list[Document],
        Field(
            min_length=1,
            fail_fast=True,
            description='Strings or objects `{"text": ...}`; a text may be empty.',
        ),
    ]
    top_n: Annotated[
        int | None,
        Field(ge=1, le=TOP_N_MAX, description="How many results to answer; absent: all."),
    ] = None
    return_documents: Annotated[
        bool | None, Field(description="Whether to repeat each document's text in its result.")
    ] = False
    rank_fields: Annotated[
        list[Literal["text"]] | None,
        Field(
            max_length=100, description="Which fields of documents are read: `text`, and no other."
        ),
    ] = None
    raw_scores: RawScores = False
    truncation_strategy: TruncationStrategy = "only_document"
    service_tier: Tier = "default"


class RerankResult(BaseModel):
    """One document's place in the answer."""

    index: Annotated[int, Field(ge=0, description="The document's position in the request.")]
    relevance_score: Annotated[
        float, Field(description="From 0 to 1, higher is better; the logit with `raw_scores`.")
    ]
    document: Annotated[
        DocumentText | None, Field(description="Only with `return_documents`; else omitted.")
    ] = None
    truncated: Truncated = None


class RerankResponse(BaseModel):
    """The documents in order, best first. Its charge is durable before it is sent."""

    id: AnswerId
    object: Literal["list"] = "list"
    model: str
    results: list[RerankResult]
    usage: Usage
    meta: Meta
