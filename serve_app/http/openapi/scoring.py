"""OpenAPI descriptions of the scoring wire formats, as data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from serve_app.protocols.infinity import InfinityError, InfinityRequest, InfinityResponse
from serve_app.protocols.nvidia import NvidiaRequest, NvidiaResponse
from serve_app.protocols.problem_body import ErrorBody
from serve_app.protocols.rerank_schema import RerankRequest, RerankResponse
from serve_app.protocols.schemas import WireType
from serve_app.protocols.score import FORMS
from serve_app.protocols.score_schema import ScoreResponse
from serve_app.protocols.tei import STATUSES, TeiError, TeiRequest, TeiResponse
from serve_app.protocols.voyage import VoyageError, VoyageRequest, VoyageResponse

Json = dict[str, Any]

RERANK_REQUEST_EXAMPLE: Json = {
    "query": "How do I reset my password?",
    "documents": ["Our office opens at nine.", {"text": "Use 'Forgot password' to set a new one."}],
    "top_n": 1,
    "return_documents": True,
}
RERANK_RESPONSE_EXAMPLE: Json = {
    "id": "rr_0f3c6f5d1c1b4b0c9a8e7d6c5b4a3f21",
    "object": "list",
    "model": "embedded",
    "results": [
        {
            "index": 1,
            "relevance_score": 0.93,
            "document": {"text": "Use 'Forgot password' to set a new one."},
        }
    ],
    "usage": {"prompt_tokens": 41, "total_tokens": 41, "documents": 2, "search_units": 1},
    "meta": {
        "api_version": {"version": "2"},
        "billed_units": {"search_units": 1, "input_tokens": 41, "total_tokens": 41},
        "tokens": {"input_tokens": 41, "output_tokens": 0},
        "charge_micro_dollars": 16,
        "warnings": [],
    },
}


STRINGS_REQUEST_EXAMPLE: Json = {
    "query": "How do I reset my password?",
    "documents": ["Our office opens at nine.", "Use 'Forgot password' to set a new one."],
}
STRING_RESULTS_EXAMPLE = [
    {"index": 1, "relevance_score": 0.93},
    {"index": 0, "relevance_score": 0.01},
]

SCORE_REQUEST_EXAMPLE: Json = {
    "pairs": [
        ["How do I reset my password?", "Use 'Forgot password' to set a new one."],
        ["When do you open?", "Our office opens at nine."],
    ],
}
SCORE_RESPONSE_EXAMPLE: Json = {
    "id": "rr_5d1f0c7be2a94f0e8d3c6b5a49382716",
    "object": "list",
    "created": 1_764_374_400,
    "model": "embedded",
    "data": [
        {"object": "score", "index": 0, "score": 0.93},
        {"object": "score", "index": 1, "score": 0.99},
    ],
    "usage": RERANK_RESPONSE_EXAMPLE["usage"],
    "meta": RERANK_RESPONSE_EXAMPLE["meta"],
}


@dataclass(frozen=True, slots=True)
class ScoringOperation:
    """One scoring wire format."""

    name: str
    """Last part of its paths, and first part of its operation ids."""

    summary: str
    answer: str
    paths: tuple[str, ...]
    """The preferred one first."""

    requests: tuple[WireType, ...]
    """A request matches one of these."""

    responses: tuple[WireType, ...]
    examples: tuple[Json, Json | list[Json]]
    errors: tuple[WireType, ...] = (ErrorBody,)
    own_statuses: Mapping[int, str] = field(default_factory=dict)
    """Error codes of statuses that only this format has."""

    @property
    def types(self) -> tuple[WireType, ...]:
        return (*self.requests, *self.responses, *self.errors)


RERANK = ScoringOperation(
    "rerank",
    "Order documents by relevance",
    "The documents by relevance, best first.",
    ("/v1/rerank", "/v2/rerank"),
    (RerankRequest,),
    (RerankResponse,),
    (RERANK_REQUEST_EXAMPLE, RERANK_RESPONSE_EXAMPLE),
)
SCORE = ScoringOperation(
    "score",
    "Score pairs of a query and a passage",
    "The scores in the order of the request's pairs.",
    ("/v1/score", "/score"),
    tuple(FORMS.values()),
    (ScoreResponse,),
    (SCORE_REQUEST_EXAMPLE, SCORE_RESPONSE_EXAMPLE),
)
RERANK_AT_ROOT = ScoringOperation(
    "rerank",
    "Alias of /v1/rerank; with `texts` instead of `documents`: rerank of TEI",
    "The documents or texts by relevance, best first.",
    ("/rerank", "/reranking", "/v1/reranking"),
    (RerankRequest, TeiRequest),
    (RerankResponse, TeiResponse),
    (
        {"query": "How do I reset my password?", "texts": ["At nine.", "Use 'Forgot password'."]},
        [{"index": 1, "score": 0.93}, {"index": 0, "score": 0.01}],
    ),
    (ErrorBody, TeiError),
    {status: code for code, status in STATUSES.items()},
)
INFINITY = ScoringOperation(
    "rerank",
    "Order documents by relevance, for clients of Infinity",
    "The documents by relevance, best first.",
    ("/infinity/rerank",),
    (InfinityRequest,),
    (InfinityResponse,),
    (
        STRINGS_REQUEST_EXAMPLE,
        RERANK_RESPONSE_EXAMPLE | {"object": "rerank", "results": STRING_RESULTS_EXAMPLE},
    ),
    (InfinityError,),
)
NVIDIA = ScoringOperation(
    "ranking",
    "Order passages by relevance, for clients of NVIDIA's NIM",
    "The passages by relevance, best first.",
    ("/v1/ranking",),
    (NvidiaRequest,),
    (NvidiaResponse,),
    (
        {
            "query": {"text": "How do I reset my password?"},
            "passages": [{"text": "Our office opens at nine."}, {"text": "Use 'Forgot password'."}],
        },
        {
            "id": RERANK_RESPONSE_EXAMPLE["id"],
            "model": "embedded",
            "rankings": [{"index": 1, "logit": 2.6}, {"index": 0, "logit": -4.6}],
            "usage": RERANK_RESPONSE_EXAMPLE["usage"],
            "meta": RERANK_RESPONSE_EXAMPLE["meta"],
        },
    ),
)
VOYAGE = ScoringOperation(
    "rerank",
    "Order documents by relevance, for clients of Voyage",
    "The documents by relevance, best first.",
    ("/voyage/v1/rerank",),
    (VoyageRequest,),
    (VoyageResponse,),
    (
        STRINGS_REQUEST_EXAMPLE,
        {
            "id": RERANK_RESPONSE_EXAMPLE["id"],
            "object": "list",
            "model": "embedded",
            "data": STRING_RESULTS_EXAMPLE,
            "usage": RERANK_RESPONSE_EXAMPLE["usage"],
            "meta": RERANK_RESPONSE_EXAMPLE["meta"],
        },
    ),
    (VoyageError,),
)
SCORING = (RERANK, RERANK_AT_ROOT, SCORE, INFINITY, NVIDIA, VOYAGE)

TEXT_LISTS: Mapping[WireType, str] = {
    RerankRequest: "documents",
    TeiRequest: "texts",
    InfinityRequest: "documents",
    NvidiaRequest: "passages",
    VoyageRequest: "documents",
}
"""The field with the texts of each request that has one query."""
