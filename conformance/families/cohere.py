"""Cohere's ``/v1/rerank`` and ``/v2/rerank``, as in its Python library and its reference."""

from typing import Any

import httpx
from pydantic import TypeAdapter

from conformance.family import Family, Option, Ranked, Usage, Wire, query_and_documents

TITLES = (
    {"title": "A tower", "text": "Penguins eat krill."},
    {"title": "An animal", "text": "The Eiffel Tower is 330 metres tall."},
)


class Text(Wire):
    """A document."""

    text: str


class Result(Wire):
    """The result for one document."""

    index: int
    relevance_score: float
    document: Text | None = None


class BilledUnits(Wire):
    """What is billed."""

    search_units: float | None = None
    input_tokens: float | None = None


class Meta(Wire):
    """Facts about the request."""

    billed_units: BilledUnits | None = None
    warnings: list[str] | None = None


class Answer(Wire):
    """The answer of both versions."""

    id: str | None = None
    results: list[Result]
    meta: Meta | None = None


class Error(Wire):
    """The body of an error."""

    message: str


def _ranked(answer: Any) -> list[Ranked]:
    return [
        Ranked(each.index, each.relevance_score, each.document.text if each.document else None)
        for each in answer.results
    ]


def _usage(response: httpx.Response) -> Usage:
    meta = Answer.model_validate(response.json()).meta
    billed = meta.billed_units if meta else None
    return Usage(billed.input_tokens, billed.search_units) if billed else Usage()


COHERE_V1 = Family(
    name="cohere-v1",
    clients="cohere.Client, Together",
    path="/v1/rerank",
    request=query_and_documents,
    answer=TypeAdapter(Answer),
    ranked=_ranked,
    usage=_usage,
    error=TypeAdapter(Error),
    route_error=TypeAdapter(Error),
    object_documents=True,
    blank_query_refused=True,
    client_fields={"return_documents": False},
    null_fields=("top_n", "rank_fields", "return_documents"),
    own_options=(Option("rank_fields", ["title"], documents=TITLES),),
)

COHERE_V2 = Family(
    name="cohere-v2",
    clients="cohere.ClientV2, LangChain, LlamaIndex, Haystack, LiteLLM",
    path="/v2/rerank",
    request=query_and_documents,
    answer=TypeAdapter(Answer),
    ranked=_ranked,
    usage=_usage,
    error=TypeAdapter(Error),
    route_error=TypeAdapter(Error),
    return_field=None,
    blank_query_refused=True,
    client_fields={"max_tokens_per_doc": 4_096, "priority": 0},
    null_fields=("top_n", "max_tokens_per_doc"),
    own_options=(Option("relevant_spans", {"mode": "enabled"}),),
)
