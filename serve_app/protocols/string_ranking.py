"""Parts of other servers' wire formats that rank strings for one query."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, NotRequired

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict  # Pydantic needs it until Python 3.12.

from serve_app.domain.job import Job, pairs_of
from serve_app.domain.model import Outcome, Overflow
from serve_app.protocols.json_body import shown
from serve_app.protocols.limits import Limits
from serve_app.protocols.wire_format import (
    Envelope,
    Fields,
    ResolveModel,
    check_count,
    check_query,
    check_supported,
    check_unicode,
    job_of,
    score_of,
    unknown_field_warnings,
)
from serve_app.protocols.wire_schema import (
    COUNT_MAX,
    ModelName,
    Tier,
    Truncated,
    TruncationStrategy,
)

Query = Annotated[str, Field(description="The text to rank by; not blank.")]
Strings = Annotated[
    list[str], Field(min_length=1, fail_fast=True, description="The texts, which may be empty.")
]
TopN = Annotated[
    int | None,
    Field(ge=1, le=COUNT_MAX, description="Number of results to return. Default: all."),
]


class RankingRequest(BaseModel):
    """Null means absent; unknown fields are ignored."""

    model_config = ConfigDict(strict=True)

    model: ModelName = None
    truncation_strategy: TruncationStrategy = "only_document"
    service_tier: Tier = "default"


@dataclass(frozen=True, slots=True)
class Ranking:
    """The content of a request, whatever its fields are called."""

    request: RankingRequest
    query: str
    texts: Sequence[str]
    top_n: int | None = None
    return_texts: bool | None = False
    raw_scores: bool | None = False
    overflow: Overflow | None = None
    query_path: str = "query"
    text_path: str = "documents[{index}]"
    """Paths for error messages, with the text's index for ``{index}``."""


@dataclass(frozen=True, slots=True)
class ParsedRanking:
    """A job and the options for its answer."""

    job: Job
    return_texts: bool
    raw_scores: bool
    warnings: tuple[str, ...]

    def text(self, index: int) -> str:
        return self.job.pairs[index].document


class StringResult(TypedDict):
    """The result for one document."""

    index: Annotated[int, Field(ge=0, description="The document's position in the request.")]
    relevance_score: Annotated[
        float, Field(description="From 0 to 1, higher is better. With `raw_scores`: the logit.")
    ]
    document: NotRequired[
        Annotated[str, Field(description="Only present with `return_documents`.")]
    ]
    truncated: NotRequired[Truncated]


def check_fields(
    kind: type[RankingRequest], fields: Fields, list_name: str, limits: Limits
) -> None:
    """Check what `validated` does not. Raises: InvalidRequest, TooLarge."""
    check_supported(fields, kind.model_fields)
    check_count(list_name, fields.get(list_name), limits, list_name)


def parsed_ranking(
    ranking: Ranking,
    fields: Fields,
    limits: Limits,
    envelope: Envelope,
    resolve_model: ResolveModel,
) -> ParsedRanking:
    """Raises: InvalidRequest."""
    check_query(ranking.query_path, ranking.query, limits)
    check_unicode(_with_paths(ranking))
    job = job_of(
        ranking.request,
        envelope,
        resolve_model,
        pairs_of(ranking.query, ranking.texts),
        top_n=ranking.top_n,
        overflow=ranking.overflow or Overflow.TRUNCATE,
        query_field=ranking.query_path,
        document_field=ranking.text_path,
    )
    known = type(ranking.request).model_fields
    unknown = (shown(name) for name in fields if name not in known)
    return ParsedRanking(
        job,
        bool(ranking.return_texts),
        bool(ranking.raw_scores),
        unknown_field_warnings(unknown),
    )


def string_results(outcome: Outcome, parsed: ParsedRanking) -> Iterator[StringResult]:
    for ranked in outcome.results:
        score = score_of(ranked, raw=parsed.raw_scores)
        result = StringResult(index=ranked.index, relevance_score=score)
        if parsed.return_texts:
            result["document"] = parsed.text(ranked.index)
        if ranked.truncated:
            result["truncated"] = True
        yield result


def _with_paths(ranking: Ranking) -> Iterator[tuple[str, str]]:
    yield "model", ranking.request.model or ""
    yield ranking.query_path, ranking.query
    for index, text in enumerate(ranking.texts):
        yield ranking.text_path.format(index=index), text
