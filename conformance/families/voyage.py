"""Voyage's ``/v1/rerank``, as in its Python library."""

from typing import Any, Literal

from pydantic import TypeAdapter

from conformance.family import (
    DetailError,
    Family,
    Option,
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
    """The answer. The library reads ``data`` and ``usage``."""

    object: Literal["list"]
    data: list[Result]
    model: str
    usage: UsageBody


def _ranked(answer: Any) -> list[Ranked]:
    return [Ranked(each.index, each.relevance_score, each.document) for each in answer.data]


VOYAGE = Family(
    name="voyage",
    clients="voyageai, LangChain, LlamaIndex, LiteLLM",
    path="/v1/rerank",
    request=query_and_documents,
    answer=TypeAdapter(Answer),
    ranked=_ranked,
    usage=usage_of_body,
    error=TypeAdapter(DetailError),
    route_error=TypeAdapter(DetailError),
    top_field="top_k",
    client_fields={"truncation": True},
    null_fields=("top_k",),
    own_options=(Option("truncation", value=False),),
    unknown_model=frozenset({400, 404, 422}),
)
