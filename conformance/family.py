"""The API of one family of rerank servers, in the terms that the checks share."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx
from pydantic import BaseModel, ConfigDict, TypeAdapter


class Wire(BaseModel):
    """Base of wire types. Additional fields are allowed; no value is converted to fit its type."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


@dataclass(frozen=True, slots=True)
class Ranked:
    """The result for one document."""

    index: int
    score: float
    text: str | None = None
    """The document, if the answer contains it."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a server says that it counted for one request; ``None``: it does not say."""

    tokens: float | None = None
    search_units: float | None = None


@dataclass(frozen=True, slots=True)
class Option:
    """A field that must change the answer to the request that contains it.

    The request has `LONG_DOCUMENTS`, unless the option has ``documents`` of its own.
    """

    name: str
    value: object
    documents: tuple[Any, ...] | None = None


@dataclass(frozen=True, slots=True)
class ModelsRoute:
    """A route that describes the served models."""

    path: str
    answer: TypeAdapter[Any]


OTHER_FAMILIES_OPTIONS = (
    Option("top_n", 1),
    Option("top_k", 1),
    Option("truncation", value=False),
    Option("max_tokens_per_doc", 4),
    Option("use_activation", value=False),
)
"""Options of several families. A server that does not know one must not ignore it, because the
client would pay for an answer that it did not ask for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """The wire forms of a family. The sources are the servers' references and the clients' code."""

    name: str
    clients: str
    """Clients that use the API, for people."""

    path: str
    """The route that scores, after the base URL."""

    query_field: str = "query"
    documents_field: str = "documents"
    request: Callable[[str, Sequence[Any]], dict[str, Any]]
    """Returns the fields for a query and documents."""

    answer: TypeAdapter[Any]
    """The fields that an answer must have."""

    ranked: Callable[[Any], list[Ranked]]
    """Returns the results of a validated answer, in its order."""

    usage: Callable[[httpx.Response], Usage]
    usage_required: bool = True
    error: TypeAdapter[Any]
    """The body of an error."""

    route_error: TypeAdapter[Any] | None
    """The body of an error about the key, path or method; ``None``: undefined."""

    json_errors: bool = True
    """Whether errors about JSON and its types have a defined body."""

    sends_model: bool = True
    order: Literal["score", "request"] = "score"
    unit_scores: bool = True
    """Whether scores are between 0 and 1."""

    top_field: str | None = "top_n"
    top_strict: bool = True
    """Whether a negative number of results is an error."""

    return_field: str | None = "return_documents"
    object_documents: bool = False
    """Whether a document may be an object with a ``text``."""

    blank_query_refused: bool = False
    raw_field: str | None = None
    client_fields: Mapping[str, object] = field(default_factory=dict)
    """Fields that the clients send by default, with values that change nothing."""

    null_fields: tuple[str, ...] = ()
    """Fields that clients send as null."""

    own_options: tuple[Option, ...] = ()
    models: ModelsRoute | None = None
    invalid: frozenset[int] = frozenset({400, 422})
    """Statuses of an invalid request."""

    unknown_model: frozenset[int] = frozenset({404})
    too_large: frozenset[int] = frozenset({400, 413, 422})

    @property
    def options(self) -> tuple[Option, ...]:
        """Options that a server must honour or refuse."""
        own = {option.name for option in self.own_options} | {self.top_field}
        others = (each for each in OTHER_FAMILIES_OPTIONS if each.name not in own)
        return (*self.own_options, *others)


def query_and_documents(query: str, documents: Sequence[Any]) -> dict[str, Any]:
    """Return the fields of the request as most families name them."""
    return {"query": query, "documents": list(documents)}


class UsageBody(Wire):
    """``usage`` of an answer."""

    total_tokens: int


def usage_of_body(response: httpx.Response) -> Usage:
    """Return ``usage.total_tokens``."""
    usage = response.json().get("usage")
    tokens = usage.get("total_tokens") if isinstance(usage, dict) else None
    return Usage(tokens=tokens if isinstance(tokens, int) else None)


class MessageError(Wire):
    """The part of OpenAI's error that its clients show."""

    message: str


class OpenAIError(Wire):
    """An error in OpenAI's form."""

    error: MessageError


class DetailError(Wire):
    """An error with its text in ``detail``."""

    detail: str


class OpenAIModel(Wire):
    """One model in OpenAI's list."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class OpenAIModels(Wire):
    """OpenAI's list of models."""

    object: Literal["list"]
    data: list[OpenAIModel]


OPENAI_MODELS = ModelsRoute("/v1/models", TypeAdapter(OpenAIModels))
