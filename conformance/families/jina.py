"""Jina's ``/v1/rerank``, as in the clients of Haystack, LlamaIndex and LiteLLM."""

from typing import Any

from pydantic import TypeAdapter

from conformance.family import (
    DetailError,
    Family,
    Ranked,
    UsageBody,
    Wire,
    query_and_documents,
    usage_of_body,
)


class Text(Wire):
    """A document as an object."""

    text: str


class Result(Wire):
    """The result for one document. Clients accept both forms of the document."""

    index: int
    relevance_score: float
    document: Text | str | None = None


class Answer(Wire):
    """The answer. Haystack's client fails without ``model`` or ``usage``."""

    model: str
    results: list[Result]
    usage: UsageBody


def _ranked(answer: Any) -> list[Ranked]:
    return [
        Ranked(each.index, each.relevance_score, _text(each.document)) for each in answer.results
    ]


def _text(document: Text | str | None) -> str | None:
    return document.text if isinstance(document, Text) else document


JINA = Family(
    name="jina",
    clients="Jina's, Haystack, LlamaIndex, LiteLLM",
    path="/v1/rerank",
    request=query_and_documents,
    answer=TypeAdapter(Answer),
    ranked=_ranked,
    usage=usage_of_body,
    error=TypeAdapter(DetailError),
    route_error=TypeAdapter(DetailError),
    object_documents=True,
    client_fields={"return_documents": False},
    null_fields=("top_n",),
    unknown_model=frozenset({400, 404, 422}),
)
