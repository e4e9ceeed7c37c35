"""The wire formats of Hugging Face's text-embeddings-inference (TEI): ``/rerank`` and ``/info``.

A request on ``/rerank`` with ``texts`` instead of ``documents`` has this format. The answer is a
list, which has no room for warnings; a header has the tokens.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any, Literal, NotRequired

from pydantic import BaseModel, Field, RootModel
from typing_extensions import TypedDict  # Pydantic needs it until Python 3.12.

from serve_app.domain.errors import InvalidRequest
from serve_app.domain.model import Outcome
from serve_app.domain.model_card import ModelCard
from serve_app.protocols.limits import Limits
from serve_app.protocols.problem_body import Problem
from serve_app.protocols.rendering import json_list
from serve_app.protocols.rerank import RERANK
from serve_app.protocols.string_ranking import (
    ParsedRanking,
    Query,
    Ranking,
    RankingRequest,
    Strings,
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
    overflow_of_flag,
    score_of,
)
from serve_app.protocols.wire_schema import RawScores, TruncationStrategy

STATUSES = {"invalid_request": 422, "engine_failure": 424}
"""TEI's own statuses by error code."""

ERROR_TYPES = {424: "Backend", 429: "Overloaded", 500: "Backend", 503: "Unhealthy", 504: "Backend"}
"""TEI's ``error_type`` by status; otherwise ``Validation``."""


class TeiRequest(RankingRequest):
    """Texts to order by how well they answer a query, as TEI's clients send them.

    TEI's own servers ignore ``model``, ``top_n`` and ``service_tier``.
    """

    query: Query
    texts: Strings
    top_n: TopN = None
    raw_scores: RawScores = False
    return_text: Annotated[
        bool | None, Field(description="Whether each result contains its text.")
    ] = False
    truncate: Annotated[
        bool | None,
        Field(description="Whether to truncate pairs that are too long, or else to refuse them."),
    ] = True
    truncation_direction: Annotated[
        Literal["Right"] | None, Field(description="Texts are always cut at their end.")
    ] = "Right"
    truncation_strategy: TruncationStrategy = "longest_first"


class TeiRank(TypedDict):
    """The score of one text."""

    index: Annotated[int, Field(ge=0, description="The text's position in the request.")]
    score: Annotated[
        float, Field(description="From 0 to 1, higher is better. With `raw_scores`: the logit.")
    ]
    text: NotRequired[Annotated[str, Field(description="Only present with `return_text`.")]]


class TeiResponse(RootModel[list[TeiRank]]):
    """The texts by relevance, best first. The charge is durable before the answer is sent."""


class TeiError(BaseModel):
    """The reason for a failed request. Nothing was charged."""

    error: str
    error_type: Literal["Unhealthy", "Backend", "Overloaded", "Validation", "Empty"]


class TeiInfo(BaseModel):
    """The default model and the limits of its requests."""

    model_id: str
    model_sha: str | None
    model_dtype: str
    served_model_name: str
    model_type: dict[str, dict[str, dict[str, str | int]]] = {
        "reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
    }
    max_concurrent_requests: Annotated[int, Field(description="Of one key in one gateway.")]
    max_input_length: Annotated[int, Field(description="Tokens of a query and a text together.")]
    max_client_batch_size: Annotated[int, Field(description="Texts of one request.")]
    auto_truncate: Literal[True] = True
    version: str


class NoTexts(InvalidRequest):
    """An empty list, which TEI does not count as a failed validation."""


def parse(
    fields: Fields, limits: Limits, envelope: Envelope, resolve_model: ResolveModel
) -> ParsedRanking:
    check_fields(TeiRequest, fields, "texts", limits)
    if fields.get("texts") == []:
        raise NoTexts("texts", "must not be empty")
    request = validated(TeiRequest, fields)
    ranking = Ranking(
        request,
        request.query,
        request.texts,
        request.top_n,
        request.return_text,
        request.raw_scores,
        overflow=overflow_of_flag(truncation=request.truncate),
        text_path="texts[{index}]",
    )
    return parsed_ranking(ranking, fields, limits, envelope, resolve_model)


def render(outcome: Outcome, parsed: ParsedRanking) -> bytes:
    return json_list(_ranks(outcome, parsed))


def headers(outcome: Outcome) -> dict[str, str]:
    return {"x-compute-tokens": str(outcome.tokens)}


def render_problem(problem: Problem) -> tuple[int, bytes]:
    error = problem.error
    if isinstance(error, NoTexts):
        status, kind = problem.status, "Empty"
    else:
        status = STATUSES.get(error.code, problem.status)
        kind = ERROR_TYPES.get(status, "Validation")
    body = TeiError.model_validate({"error": error.public_message, "error_type": kind})
    return status, body.model_dump_json().encode()


def render_info(card: ModelCard, limits: Limits, requests_max: int, version: str) -> bytes:
    info = TeiInfo(
        model_id=card.id,
        model_sha=card.revision,
        model_dtype=card.precision,
        served_model_name=card.id,
        max_concurrent_requests=requests_max,
        max_input_length=card.pair_tokens_max,
        max_client_batch_size=limits.documents_per_request_max,
        version=version,
    )
    return info.model_dump_json().encode()


TEI = WireFormat(parse, render, render_problem, headers)


def _ranks(outcome: Outcome, parsed: ParsedRanking) -> Iterator[TeiRank]:
    for ranked in outcome.results:
        rank = TeiRank(index=ranked.index, score=score_of(ranked, raw=parsed.raw_scores))
        if parsed.return_texts:
            rank["text"] = parsed.text(ranked.index)
        yield rank


def _chosen(fields: Fields) -> WireFormat[Any]:
    return TEI if "texts" in fields and "documents" not in fields else RERANK


RERANK_OR_TEI = replace(RERANK, choose=_chosen)
"""The wire formats of ``/rerank``. Errors before the body is read have the default form."""
