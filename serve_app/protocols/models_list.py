"""``GET /v1/models`` in the format of OpenAI's clients."""

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from serve_app.domain.model_card import ModelCard
from serve_app.domain.units import MICRO_DOLLARS_PER_DOLLAR
from serve_app.protocols.limits import Limits
from serve_app.protocols.model_facts import ModelFacts


class ModelPricing(BaseModel):
    """Prices of a document and of tokens. A request costs the sum of both."""

    micro_dollars_per_document: int
    flex_micro_dollars_per_document: Annotated[int, Field(description="With `service_tier: flex`.")]
    priority_micro_dollars_per_document: Annotated[
        int, Field(description="With `service_tier: priority`.")
    ]
    dollars_per_1000_documents: float
    micro_dollars_per_million_tokens: Annotated[
        int, Field(description="Price of all tokens of a request, rounded up to a micro-dollar.")
    ]
    flex_micro_dollars_per_million_tokens: Annotated[
        int, Field(description="With `service_tier: flex`.")
    ]
    priority_micro_dollars_per_million_tokens: Annotated[
        int, Field(description="With `service_tier: priority`.")
    ]
    dollars_per_million_tokens: float
    currency: Literal["USD"] = "USD"


class ModelLimits(BaseModel):
    """Limits on one request to this model."""

    pair_tokens_max: Annotated[
        int, Field(description="Tokens of query and document; longer pairs are cut.")
    ]
    documents_per_request_max: int
    body_bytes_max: int
    query_characters_max: int


RANGES: dict[str | None, tuple[float | None, float | None]] = {
    "sigmoid": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
    "relu": (0.0, None),
}
"""Bounds of activations; others have none."""


class NativeScores(BaseModel):
    """The model's own scores: its authors apply `activation` to the logit."""

    activation: Annotated[
        str | None,
        Field(
            description="Such as `sigmoid`, or `identity` for the logit itself. "
            "Null until a replica has answered."
        ),
    ]
    min: Annotated[float | None, Field(description="Null if there is no least score.")]
    max: Annotated[float | None, Field(description="Null if there is no greatest score.")]


class ModelObject(BaseModel):
    """One served model."""

    id: str
    aliases: Annotated[list[str], Field(description="Other names for `model` in a request.")]
    object: Literal["model"] = "model"
    created: Annotated[int, Field(description="Always 0. OpenAI's clients need the field.")] = 0
    owned_by: Literal["rerank-serve"] = "rerank-serve"
    description: str
    source: str
    revision: str | None
    precision: str
    device: Annotated[str | None, Field(description="Null until a replica has answered.")]
    ready: bool
    native_scores: NativeScores
    pricing: ModelPricing
    limits: ModelLimits


class ModelSpeed(BaseModel):
    """Speed as this installation has measured it."""

    tokens_per_s: Annotated[
        float | None,
        Field(
            description="Tokens that one replica reads per second, in recent large batches. Null "
            "until one has answered a request."
        ),
    ]


class ModelDetails(ModelObject):
    """One served model, with what a person needs to choose it."""

    task: Literal["text-ranking"] = "text-ranking"
    speed: ModelSpeed
    card: Annotated[
        ModelFacts, Field(description="What the model's files and the operator state about it.")
    ]


class ModelList(BaseModel):
    """Every model that the API key may use. The default model is first if the key may use it."""

    object: Literal["list"] = "list"
    data: list[ModelObject]


def render_models(cards: Iterable[ModelCard], limits: Limits) -> bytes:
    models = [_model(card, limits) for card in cards]
    return ModelList(data=models).model_dump_json().encode()


def render_model(card: ModelCard, limits: Limits) -> bytes:
    details = ModelDetails(
        **dict(_model(card, limits)),
        speed=ModelSpeed(tokens_per_s=card.tokens_per_s),
        card=ModelFacts.model_validate(dict(card.facts)),
    )
    return details.model_dump_json().encode()


def _model(card: ModelCard, limits: Limits) -> ModelObject:
    least, greatest = RANGES.get(card.activation, (None, None))
    documents, tokens = card.tariff.per_document, card.tariff.per_million_tokens
    return ModelObject(
        id=card.id,
        aliases=list(card.aliases),
        description=card.description,
        source=card.source,
        revision=card.revision,
        precision=card.precision,
        device=card.device,
        ready=card.ready,
        native_scores=NativeScores(activation=card.activation, min=least, max=greatest),
        pricing=ModelPricing(
            micro_dollars_per_document=documents.default,
            flex_micro_dollars_per_document=documents.flex,
            priority_micro_dollars_per_document=documents.priority,
            dollars_per_1000_documents=documents.default * 1_000 / MICRO_DOLLARS_PER_DOLLAR,
            micro_dollars_per_million_tokens=tokens.default,
            flex_micro_dollars_per_million_tokens=tokens.flex,
            priority_micro_dollars_per_million_tokens=tokens.priority,
            dollars_per_million_tokens=tokens.default / MICRO_DOLLARS_PER_DOLLAR,
        ),
        limits=ModelLimits(
            pair_tokens_max=card.pair_tokens_max,
            documents_per_request_max=limits.documents_per_request_max,
            body_bytes_max=limits.body_bytes_max,
            query_characters_max=limits.query_characters_max,
        ),
    )
