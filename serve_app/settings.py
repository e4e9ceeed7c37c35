"""All settings of the service, with units and limits, validated against each other.

Precedence: arguments (a Serve config file's ``args``) > environment (``RERANK_...``) > the defaults
below. `serve_app.app` or `serve_app.cli` reads them once and passes values to all other code.
"""

import os
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from serve_app.domain.model import EMBEDDED
from serve_app.domain.model_card import Prices, Tariff

Precision = Literal["auto", "float32", "bfloat16", "float16"]


GATEWAY_DEPLOYMENT = "gateway"


class ModelSettings(BaseModel):
    """One served model, which has its own Scorer deployment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$")]
    """Name that clients send as ``model``. Answers, charges, logs and metrics use it, too."""

    aliases: tuple[Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{1,256}$")], ...] = ()
    """Other names that clients may send instead of the id, such as the hub id: 1 to 256 characters,
    without control characters. Ids and aliases match in any letter case and must be unique."""

    source: Annotated[str, Field(min_length=1)]
    """A hub id, a local folder, or ``embedded``."""

    revision: str | None = None
    """A revision on the hub (branch, tag or commit); ``None`` means the newest. Ignored for local
    folders."""

    precision: Precision = "auto"
    """``auto``: float16 on CUDA, bfloat16 on CPUs with AMX (matrix instructions), else float32."""

    price_micro_dollars_per_document: Annotated[int, Field(ge=0, le=1_000_000)] = 8
    """8 means $0.008 per 1,000 documents."""

    flex_price_micro_dollars_per_document: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """Price in the service tier ``flex``; ``None`` means half the price above, rounded up."""

    priority_price_micro_dollars_per_document: Annotated[int, Field(ge=0, le=2_000_000)] | None = (
        None
    )
    """Price in the service tier ``priority``; ``None`` means twice the price above. At the same
    price, all clients would use this tier."""

    price_micro_dollars_per_million_tokens: Annotated[int, Field(ge=0, le=1_000_000_000)] = 0
    """Price of the tokens that the model reads, in addition to the price of the documents. 50,000
    means $0.05 per million tokens."""

    flex_price_micro_dollars_per_million_tokens: (
        Annotated[int, Field(ge=0, le=1_000_000_000)] | None
    ) = None
    """Price of the tokens in the service tier ``flex``; ``None`` means half the price above,
    rounded up."""

    priority_price_micro_dollars_per_million_tokens: (
        Annotated[int, Field(ge=0, le=2_000_000_000)] | None
    ) = None
    """Price of the tokens in the service tier ``priority``; ``None`` means twice the price
    above."""

    pair_tokens_max: Annotated[int, Field(ge=16, le=32_768)] | None = None
    """Longest pair, in tokens; ``None`` means the maximum of the model."""

    deployment: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")] | None = None
    """Name of the Serve deployment, for ``deployments`` in the config file; ``None`` means
    ``scorer-<id>``, with ``-`` for other characters than letters and digits."""

    @property
    def deployment_name(self) -> str:
        slug = "".join(letter if letter.isalnum() else "-" for letter in self.id)
        return self.deployment or f"scorer-{slug}"

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


class Settings(BaseSettings):
    """The whole configuration; immutable."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix="RERANK_",
        hide_input_in_errors=True,  # Inputs may hold the database password or the sink's token.
    )

    models: Annotated[tuple[ModelSettings, ...], Field(min_length=1)] = (
        ModelSettings(id=EMBEDDED, source=EMBEDDED),
    )
    """The first is the default model, which also decides readiness."""

    var_dir: Path = Path("var")
    """Folder for the database and logs of a single node, and on every node for models that were
    converted for OpenVINO. Use it for nothing else: the service removes the permissions of other
    users."""

    database_url: str = ""
    """SQLAlchemy URL of the ledger; empty means SQLite in ``var_dir``. ``env:NAME`` reads it from
    the environment variable NAME and fails if that is not set, so that a cluster never falls back
    to a file per node."""

    database_timeout_s: Annotated[float, Field(gt=0, le=10)] = 5.0
    """Longest time for one ledger write, after which the request is refused, and for reading one
    report. At most 10 s, because the rate windows attribute a longer delay to a wrong clock."""

    charges_kept_days: Annotated[int, Field(ge=1, le=36_500)] = 90
    """Age in days after which charges are aggregated to sums per day, key and model."""

    free_credit_micro_dollars: Annotated[int, Field(ge=0, le=1_000_000_000_000)] = 0
    """Initial credit of a new tenant unless the operator names an amount."""

    key_cache_s: Annotated[float, Field(ge=0, le=5)] = 5.0
    """Longest time for which a gateway caches a key, and for which a revoked key still works."""

    events_url: Annotated[str, Field(pattern=r"^(https?://[^\s]+)?$")] = ""
    """URL to which events about charges and low credit are posted; empty turns events off."""

    events_token: SecretStr = SecretStr("")
    """Token sent to that URL as ``Authorization: Bearer``; empty sends none. It must be given as
    ``env:NAME``, because Ray logs the arguments of an application."""

    body_bytes_max: Annotated[int, Field(ge=1_000, le=33_554_432)] = 10_000_000
    """Most bytes of a request body."""

    documents_per_request_max: Annotated[int, Field(ge=1, le=10_000)] = 1_000
    """Most documents or pairs of a request."""

    query_characters_max: Annotated[int, Field(ge=1)] = 32_768
    """Most characters of a query."""

    request_timeout_s: Annotated[float, Field(gt=0)] = 30.0
    """Timeout of a request without the header ``x-request-timeout-s``."""

    request_timeout_s_max: Annotated[float, Field(gt=0, le=100)] = 60.0
    """Longest timeout that a client may ask for; the proxy closes connections after 120 s."""

    body_timeout_s: Annotated[float, Field(gt=0, le=60)] = 10.0
    """Longest time for a request body to arrive, whatever the timeout of the request."""

    cors_allowed_origins: tuple[
        Annotated[str, Field(pattern=r"^(\*|[a-z][a-z0-9+.-]*://[^\s/*A-Z]+)$")], ...
    ] = ()
    """Origins whose web pages may call the API from a browser, such as ``https://app.example``, in
    lower case and without a path; ``*`` means any."""

    reservation_margin_s: Annotated[float, Field(ge=1)] = 30.0
    """Time from a request's deadline until its reservation expires."""

    body_bytes_held_max: Annotated[int, Field(ge=1_000)] = 250_000_000
    """Total bytes of request bodies that one gateway replica may hold; beyond that it answers 429.
    A tenant may hold a quarter."""

    gate_tokens_max: Annotated[int, Field(ge=1)] = 8_000_000
    """Total tokens that one gateway replica may hold, waiting or running (about 4 bytes each);
    beyond that it answers 429. A tenant may hold a quarter. A single larger request is admitted
    only while its tenant holds nothing."""

    portion_tokens_max: Annotated[int, Field(ge=16)] = 16_384
    """Most tokens of one portion, which is the unit of dispatch. Portions are smaller (from 512) if
    the replica needs more than 0.15 s for them."""

    batch_tokens_max: Annotated[int, Field(ge=16)] = 32_768
    """Most tokens that one scorer replica collects into a batch. A device that scores fewer in
    0.15 s collects that many."""

    forward_tokens_max: Annotated[int, Field(ge=16)] | None = None
    """Most tokens in one forward pass, including padding; ``None`` means ``batch_tokens_max`` on a
    GPU, 2,048 on CPUs with AMX and 512 on other CPUs."""

    tokenizer_threads: Annotated[int, Field(ge=1, le=64)] = 2
    """CPU threads of one gateway replica that tokenize small jobs. Large bodies and answers have as
    many, and so has the process for a model's large jobs."""

    scorer_threads: Annotated[int, Field(ge=0, le=256)] = 0
    """CPU threads of one scorer replica; 0 means all visible cores, at most the whole cores of a
    container's CPU limit. Ignored on CUDA."""

    @field_validator("database_url")
    @classmethod
    def _url_from_environment(cls, url: str) -> str:
        return _from_environment(url)

    @field_validator("events_url")
    @classmethod
    def _url_without_secrets(cls, url: str) -> str:
        if "@" in urlsplit(url).netloc:
            raise ValueError("contains a user or password, which Ray would log; use events_token")
        return url

    @field_validator("events_token")
    @classmethod
    def _token_from_environment(cls, setting: SecretStr) -> SecretStr:
        value = setting.get_secret_value()
        if value and not value.startswith("env:"):
            raise ValueError("must be env:NAME, because Ray logs arguments")
        token = _from_environment(value)
        if not (token.isascii() and token.isprintable()) or " " in token:
            # HTTP libraries repeat an invalid token in their errors.
            raise ValueError("must be printable ASCII without spaces")
        return SecretStr(token)

    @model_validator(mode="after")
    def _limits_fit_each_other(self) -> Self:
        problems = []
        aliases = [alias.casefold() for model in self.models for alias in model.aliases]
        names = [*(model.id.casefold() for model in self.models), *aliases]
        if len(set(names)) < len(names):
            problems.append("models: an id or alias, in any letter case, is used more than once")
        if EMBEDDED in aliases:
            problems.append(
                f"models: '{EMBEDDED}' names the default model and must not be an alias"
            )
        deployments = {model.deployment_name for model in self.models}
        if len(deployments) < len(self.models) or GATEWAY_DEPLOYMENT in deployments:
            problems.append("models: two deployments have the same name; set `deployment`")
        if self.request_timeout_s > self.request_timeout_s_max:
            problems.append("request_timeout_s is above request_timeout_s_max")
        if self.batch_tokens_max < self.portion_tokens_max:
            problems.append("batch_tokens_max is below portion_tokens_max: no portion would fit")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def resolved_database_url(self) -> str:
        """``database_url``, or SQLite at an absolute path, as replicas start in other folders."""
        return self.database_url or self._default_database_url

    @property
    def ledger_is_in_var_dir(self) -> bool:
        """Whether the ledger is the default SQLite database, which needs ``var_dir``."""
        return self.resolved_database_url == self._default_database_url

    @property
    def _default_database_url(self) -> str:
        return f"sqlite:///{(self.var_dir / 'rerank.db').absolute()}"


def _from_environment(setting: str) -> str:
    """Replace ``env:NAME`` by the environment variable; return any other setting unchanged."""
    scheme, _, name = setting.partition(":")
    if scheme != "env":
        return setting
    if not os.environ.get(name):
        raise ValueError(f"the environment variable {name} is not set")
    return os.environ[name]
