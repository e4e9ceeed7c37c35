"""``GET /v1/models`` in the format of Cohere's libraries."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Final, Literal

from pydantic import BaseModel, Field

from serve_app.domain.model_card import ModelCard
from serve_app.domain.units import ModelId

ENDPOINT: Final = "rerank"


class CohereModel(BaseModel):
    """One served model, for Cohere's libraries."""

    name: Annotated[str, Field(description="The id of the model.")]
    endpoints: list[Literal["rerank"]] = [ENDPOINT]
    default_endpoints: list[Literal["rerank"]]
    is_deprecated: Literal[False] = False
    finetuned: Literal[False] = False
    context_length: Annotated[int, Field(description="Tokens of query and document.")]


class CohereModels(BaseModel):
    """Every model that the API key may use, in one page."""

    models: list[CohereModel]


def render_cohere_models(
    cards: Iterable[ModelCard], default: ModelId, query: Mapping[str, str]
) -> bytes:
    """Apply Cohere's filters ``endpoint`` and ``default_only``."""
    models = [_model(card, default) for card in cards]
    if query.get("endpoint", ENDPOINT) != ENDPOINT:
        models = []
    if query.get("default_only", "").lower() == "true":
        models = [model for model in models if model.default_endpoints]
    return CohereModels(models=models).model_dump_json().encode()


def render_cohere_model(card: ModelCard, default: ModelId) -> bytes:
    return _model(card, default).model_dump_json().encode()


def _model(card: ModelCard, default: ModelId) -> CohereModel:
    return CohereModel(
        name=card.id,
        default_endpoints=[ENDPOINT] if card.id == default else [],
        context_length=card.pair_tokens_max,
    )
