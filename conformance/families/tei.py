"""``/rerank`` of Hugging Face's text-embeddings-inference (TEI), as in its source and clients."""

from collections.abc import Sequence
from typing import Any, Literal

import httpx
from pydantic import TypeAdapter

from conformance.family import Family, ModelsRoute, Option, Ranked, Usage, Wire


class Rank(Wire):
    """The score of one text."""

    index: int
    score: float
    text: str | None = None


class Error(Wire):
    """The body of an error."""

    error: str
    error_type: Literal["Unhealthy", "Backend", "Overloaded", "Validation", "Tokenizer", "Empty"]


class Info(Wire):
    """The fields of ``/info`` that clients read."""

    model_id: str
    model_type: dict[str, Any]
    max_input_length: int
    max_client_batch_size: int
    max_concurrent_requests: int
    version: str


def _request(query: str, documents: Sequence[Any]) -> dict[str, Any]:
    return {"query": query, "texts": list(documents)}


def _ranked(answer: Any) -> list[Ranked]:
    return [Ranked(each.index, each.score, each.text) for each in answer]


def _usage(response: httpx.Response) -> Usage:
    tokens = response.headers.get("x-compute-tokens", "")
    return Usage(tokens=int(tokens) if tokens.isdecimal() else None)


TEI = Family(
    name="tei",
    clients="huggingface_hub, Haystack, LlamaIndex, LiteLLM",
    path="/rerank",
    documents_field="texts",
    request=_request,
    answer=TypeAdapter(list[Rank]),
    ranked=_ranked,
    usage=_usage,
    error=TypeAdapter(Error),
    route_error=None,  # TEI's own is empty.
    json_errors=False,  # TEI's own are plain text.
    sends_model=False,
    top_field=None,
    return_field="return_text",
    raw_field="raw_scores",
    client_fields={"raw_scores": False, "truncate": True, "truncation_direction": "Right"},
    null_fields=("truncate",),
    own_options=(Option("truncate", value=False), Option("truncation_direction", "Left")),
    models=ModelsRoute("/info", TypeAdapter(Info)),
)
