"""``/v1/ranking`` of NVIDIA's NIM for reranking, as in LangChain's client."""

from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter

from conformance.family import (
    OPENAI_MODELS,
    DetailError,
    Family,
    Option,
    Ranked,
    Wire,
    usage_of_body,
)


class Rank(Wire):
    """The logit of one passage."""

    index: int
    logit: float


class Answer(Wire):
    """The answer."""

    rankings: list[Rank]


def _request(query: str, documents: Sequence[Any]) -> dict[str, Any]:
    return {"query": {"text": query}, "passages": [{"text": text} for text in documents]}


def _ranked(answer: Any) -> list[Ranked]:
    return [Ranked(each.index, each.logit) for each in answer.rankings]


NVIDIA = Family(
    name="nvidia",
    clients="LangChain, LlamaIndex, Haystack, LiteLLM, AIPerf",
    path="/v1/ranking",
    documents_field="passages",
    request=_request,
    answer=TypeAdapter(Answer),
    ranked=_ranked,
    usage=usage_of_body,
    usage_required=False,
    error=TypeAdapter(DetailError),
    route_error=TypeAdapter(DetailError),
    unit_scores=False,
    top_field=None,
    return_field=None,
    client_fields={"truncate": "END"},
    own_options=(Option("truncate", "NONE"),),
    models=OPENAI_MODELS,
    unknown_model=frozenset({400, 404, 422}),
)
