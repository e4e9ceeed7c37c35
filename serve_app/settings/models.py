"""Settings of a model: how it is computed, and how clients see it."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from serve_app.domain.model_card import Prices, Tariff
from serve_app.domain.units import Revision

Precision = Literal["auto", "float32", "bfloat16", "float16"]


class Checkpoint(BaseModel):
    """Where a model comes from, and how it is computed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Annotated[str, Field(min_length=1)]
    """A hub id, a local folder, or ``embedded``."""

    revision: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """A branch, tag or commit on the hub; ``None`` means the newest. Ignored for local folders."""

    precision: Precision = "auto"
    """``auto``: float16 on CUDA, bfloat16 on CPUs with AMX (matrix instructions), else float32."""

    pair_tokens_max: Annotated[int, Field(ge=16, le=32_768)] | None = None
    """Longest pair, in tokens; ``None`` means the maximum of the model."""


ApplicationName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,128}$")]


class Canary(BaseModel):
    """A second revision of a model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    application: ApplicationName
    """Name of the Serve application with the canary's scorers."""

    checkpoint: Checkpoint
    """The same as in the ``args`` of that application."""

    share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the tenants whose requests the canary scores. A tenant always gets the same
    revision, and a larger share only adds tenants."""

    shadow_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the live revision's answered requests that the canary scores again to compare both
    rankings, without a charge and only in spare capacity."""


class ModelSettings(BaseModel):
    """One served model, as clients see it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$")]
    """Name that clients send as ``model``. Answers, charges, logs and metrics use it, too."""

    aliases: tuple[Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{1,256}$")], ...] = ()
    """Other names that clients may send, such as the hub id: 1 to 256 characters, without control
    characters. Ids and aliases match in any letter case and must be unique."""

    checkpoint: Checkpoint
    """The same as in the ``args`` of the scorers' application. Gateways load its tokenizer."""

    application: ApplicationName | None = None
    """Name of the scorers' Serve application; ``None`` means the id, with ``-`` for other
    characters than letters and digits."""

    canary: Canary | None = None
    """A second revision, which is tried before it replaces the live one."""

    card: Annotated[str, Field(min_length=1)] | None = None
    """A YAML or JSON file, on every gateway's node, with facts about the model that ``GET
    /v1/models/{id}`` shows. `docs/your-own-model.md` describes it."""

    price_micro_dollars_per_document: Annotated[int, Field(ge=0, le=1_000_000)] = 8
    """8 means $0.008 per 1,000 documents."""

    flex_price_micro_dollars_per_document: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """Price in the service tier ``flex``; ``None`` means half the price above, rounded up."""

    priority_price_micro_dollars_per_document: Annotated[int, Field(ge=0, le=2_000_000)] | None = (
        None
    )
    """Price in the service tier ``priority``; ``None`` means twice the price of the default tier.
    At the same price, all clients would use this tier."""

    price_micro_dollars_per_million_tokens: Annotated[int, Field(ge=0, le=1_000_000_000)] = 0
    """Price of the tokens that the model reads, in addition to that of the documents. 50,000 means
    $0.05 per million tokens."""

    flex_price_micro_dollars_per_million_tokens: (
        Annotated[int, Field(ge=0, le=1_000_000_000)] | None
    ) = None
    """Price of the tokens in the service tier ``flex``; ``None`` means half the price above,
    rounded up."""

    priority_price_micro_dollars_per_million_tokens: (
        Annotated[int, Field(ge=0, le=2_000_000_000)] | None
    ) = None
    """Price of the tokens in the service tier ``priority``; ``None`` means twice the price of the
    default tier."""

    @property
    def application_name(self) -> str:
        slug = "".join(letter if letter.isalnum() else "-" for letter in self.id)
        return self.application or slug

    @property
    def revision(self) -> Revision:
        """The application and the checkpoint's revision."""
        of_source = self.checkpoint.revision
        return Revision(self.application_name + (f"@{of_source}" if of_source else ""))

    @property
    def as_canary(self) -> Self | None:
        """The model with its canary as the live revision."""
        if self.canary is None:
            return None
        update = {
            "application": self.canary.application,
            "checkpoint": self.canary.checkpoint,
            "canary": None,
        }
        return self.model_copy(update=update)

    @property
    def revisions(self) -> tuple[Self, ...]:
        """The live revision, and the canary if there is one."""
        return (self, self.as_canary) if self.as_canary is not None else (self,)

    @property
    def tariff(self) -> Tariff:
        return Tariff(
            _prices(
                self.price_micro_dollars_per_document,
                self.flex_price_micro_dollars_per_document,
                self.priority_price_micro_dollars_per_document,
            ),
            _prices(
                self.price_micro_dollars_per_million_tokens,
                self.flex_price_micro_dollars_per_million_tokens,
                self.priority_price_micro_dollars_per_million_tokens,
            ),
        )


def _prices(default: int, flex: int | None, priority: int | None) -> Prices:
    return Prices(
        default,
        flex=-(-default // 2) if flex is None else flex,
        priority=2 * default if priority is None else priority,
    )
