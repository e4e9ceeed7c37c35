"""Infinity's ``/rerank``, as in its source and its generated client."""

from typing import Any, Literal

from pydantic import TypeAdapter

from conformance.family import (
    Family,
    ModelsRoute,
    OpenAIError,
    Ranked,
    UsageBody,
    Wire,
    query_and_documents,
    usage_of_body,
)


class Result(Wire):
    """The result for one document."""

    index: int
    relevance_score: float
    document: str | None = None


class Answer(Wire):
    """The answer, with the fields that the client requires."""

    object: Literal["rerank"]
    results: list[Result]
    model: str
    usage: UsageBody


class ValidationFault(Wire):
    """One fault of a request."""

    loc: list[str | int]
    msg: str


class ValidationError(Wire):
    """FastAPI's body for an invalid request."""

    detail: list[ValidationFault]


class RouteError(Wire):
    """FastAPI's body for other errors."""

    detail: str


class Model(Wire):
    """One served model. The client accepts no other owner."""

    id: str
    object: Literal["model"]
    owned_by: Literal["infinity"]
    stats: dict[str, Any]
    backend: str


class Models(Wire):
    """The list of models."""

    object: Literal["list"]
    data: list[Model]


def _ranked(answer: Any) -> list[Ranked]:
    return [Ranked(each.index, each.relevance_score, each.document) for each in answer.results]


INFINITY = Family(
    name="infinity",
    clients="infinity_client, LangChain, LiteLLM",
    path="/rerank",
    request=query_and_documents,
    answer=TypeAdapter(Answer),
    ranked=_ranked,
    usage=usage_of_body,
    error=TypeAdapter(OpenAIError | ValidationError | RouteError),
    route_error=TypeAdapter(OpenAIError | RouteError),
    raw_field="raw_scores",
    client_fields={"return_documents": False, "raw_scores": False},
    null_fields=("top_n",),
    models=ModelsRoute("/models", TypeAdapter(Models)),
    unknown_model=frozenset({400, 404}),
)
