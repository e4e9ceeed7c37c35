"""Facts about a model for people who choose one, from its own files or from the operator.

They are an operator's model card, and the part ``card`` of ``GET /v1/models/{id}``. An unknown fact
is null or empty.
"""

from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from serve_app.domain.errors import InvalidRequest
from serve_app.domain.model_card import FACT_CHARACTERS_MAX, FACTS_MAX
from serve_app.protocols.validation import validated

LONG_FACT_CHARACTERS_MAX = 4_000

Text = Annotated[str, Field(min_length=1, max_length=FACT_CHARACTERS_MAX)]
LongText = Annotated[str, Field(min_length=1, max_length=LONG_FACT_CHARACTERS_MAX)]
Link = Annotated[str, Field(pattern=r"^https?://[^\s<>\"]{1,1000}$")]


class _Facts(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Quality(_Facts):
    """One result of an evaluation."""

    dataset: Text
    metric: Annotated[Text, Field(description="Such as `NDCG@10`.")]
    value: float
    origin: Annotated[
        Literal["published", "measured"],
        Field(
            description="`published` by the model's authors, or `measured` with this service by "
            "its operator or its authors."
        ),
    ]
    source: Annotated[
        LongText | None, Field(description="Where the figure is from, or how it was measured.")
    ] = None


class Answer(_Facts):
    """A frequent question about the model."""

    question: Text
    answer: LongText


class ModelFacts(_Facts):
    """Facts about a model. Unknown ones are null or empty."""

    summary: LongText | None = None
    architecture: Annotated[Text | None, Field(description="Class of transformers.")] = None
    parameters: Annotated[int | None, Field(ge=1, description="Number of weights.")] = None
    base_model: Text | None = None
    languages: Annotated[list[Text], Field(max_length=FACTS_MAX, description="Such as `en`.")] = []
    license: Annotated[Text | None, Field(description="Such as `apache-2.0`.")] = None
    license_url: Link | None = None
    source_url: Annotated[Link | None, Field(description="The model's public page.")] = None
    training_data: Annotated[list[LongText], Field(max_length=FACTS_MAX)] = []
    input_format: LongText | None = None
    quality: Annotated[list[Quality], Field(max_length=FACTS_MAX)] = []
    faq: Annotated[list[Answer], Field(max_length=FACTS_MAX)] = []


class CardError(ValueError):
    """A model card is not valid; the message names the field."""


def parse_card(text: str) -> dict[str, object]:
    """Parse a model card in YAML or JSON. Raises: CardError."""
    try:
        fields = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise CardError(" ".join(f"it is not valid YAML: {error}".split())) from None
    if not isinstance(fields, dict) or not all(isinstance(name, str) for name in fields):
        raise CardError("it must be a mapping of names to facts")
    return facts(fields).model_dump(exclude_unset=True)


def facts(fields: dict[str, object]) -> ModelFacts:
    """Raises: CardError."""
    try:
        return validated(ModelFacts, fields)
    except InvalidRequest as error:
        raise CardError(f"{error.where} {error.problem}") from None
