"""vLLM's ``/v1/rerank`` and ``/v1/score``, as in its protocol classes and its clients."""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import TypeAdapter

from conformance.family import (
    OPENAI_MODELS,
    Family,
    OpenAIError,
    Option,
    Ranked,
    UsageBody,
    Wire,
    query_and_documents,
    usage_of_body,
)


class Document(Wire):
    """A document."""

    text: str | None = None


class Result(Wire):
    """The result for one document. vLLM always has ``document``; its clients do not need it."""

    index: int
    relevance_score: float
    document: Document | None = None


class Answer(Wire):
    """The answer of ``/v1/rerank``."""

    id: str
    model: str
    usage: UsageBody
    results: list[Result]


class Score(Wire):
    """The score of one pair."""

    index: int
    object: Literal["score"]
    score: float


class ScoreAnswer(Wire):
    """The answer of ``/v1/score``."""

    id: str
    object: Literal["list"]
    model: str
    data: list[Score]
    usage: UsageBody


def _ranked(answer: Any) -> list[Ranked]:
    return [
        Ranked(each.index, each.relevance_score, each.document.text if each.document else None)
        for each in answer.results
    ]


def _scored(answer: Any) -> list[Ranked]:
    return [Ranked(each.index, each.score) for each in answer.data]


def _score_request(query: str, documents: Sequence[Any]) -> dict[str, Any]:
    return {"text_1": query, "text_2": list(documents)}


VLLM = Family(
    name="vllm",
    clients="clients of vLLM's and OpenAI-like rerank servers, Haystack, LiteLLM",
    path="/v1/rerank",
    request=query_and_documents,
    answer=TypeAdapter(Answer),
    ranked=_ranked,
    usage=usage_of_body,
    error=TypeAdapter(OpenAIError),
    route_error=None,  # vLLM's own is {"error": "Unauthorized"} or FastAPI's.
    unit_scores=False,
    top_strict=False,
    return_field=None,
    own_options=(Option("truncate_prompt_tokens", 8),),
    models=OPENAI_MODELS,
)

VLLM_SCORE = Family(
    name="vllm-score",
    clients="clients of vLLM's score API",
    path="/v1/score",
    query_field="text_1",
    documents_field="text_2",
    request=_score_request,
    answer=TypeAdapter(ScoreAnswer),
    ranked=_scored,
    usage=usage_of_body,
    error=TypeAdapter(OpenAIError),
    route_error=None,
    order="request",
    unit_scores=False,
    top_field=None,
    return_field=None,
    own_options=(Option("truncate_prompt_tokens", 8),),
    models=OPENAI_MODELS,
)
