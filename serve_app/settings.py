"""Every setting of the service, with its unit and its limits, checked against each other.

One precedence: arguments (a Serve config file's ``args``) > environment (``RERANK_...``) > the
defaults below. Read once, by `serve_app.app` or `serve_app.cli`; everybody else gets values.
"""

import os
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from serve_app.domain.model import EMBEDDED, Prices

Precision = Literal["auto", "float32", "bfloat16", "float16"]


GATEWAY_DEPLOYMENT = "gateway"


class ModelSettings(BaseModel):
    """One model that is served, as its own Scorer deployment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$")]
    """What clients write in ``model``."""

    aliases: tuple[Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{1,256}$")], ...] = ()
    """Other names for the model that clients may write instead of its id; 1 to 256 characters,
    without control characters."""

    source: Annotated[str, Field(min_length=1)]
    """A hub id, a local folder, or ``embedded``."""

    revision: str | None = None
    """A hub revision (branch, tag or commit); ignored for local folders."""

    precision: Precision = "auto"
    """``auto``: float16 on CUDA, bfloat16 on CPUs with a matrix unit for it (AMX), else float32."""

    price_micro_dollars_per_document: Annotated[int, Field(ge=0, le=1_000_000)] = 8
    """8 is $0.008 per 1,000 documents."""

    flex_price_micro_dollars_per_document: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """In the service tier ``flex``; ``None`` is half the price, rounded up."""

    priority_price_micro_dollars_per_document: Annotated[int, Field(ge=0, le=2_000_000)] | None = (
        None
    )
    """In the service tier ``priority``; ``None`` is twice the price. Were it the price itself,
    everybody would go first."""

    pair_tokens_max: Annotated[int, Field(ge=16, le=32_768)] | None = None
    """Longest pair, in tokens; ``None`` takes what the model itself allows."""

    deployment: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")] | None = None
    """Name of the Serve deployment; ``None`` derives ``scorer-<id>`` from the model id."""

    @property
    def deployment_name(self) -> str:
        slug = "".join(letter if letter.isalnum() else "-" for letter in self.id)
        return self.deployment or f"scorer-{slug}"

    @property
    def prices(self) -> Prices:
        default = self.price_micro_dollars_per_document
        flex = self.flex_price_micro_dollars_per_document
        priority = self.priority_price_micro_dollars_per_document
        return Prices(
            default,
            flex=-(-default // 2) if flex is None else flex,
            priority=2 * default if priority is None else priority,
        )


class Settings(BaseSettings):
    """The whole configuration, frozen."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix="RERANK_",
        hide_input_in_errors=True,  # It may hold the database's password or the sink's token.
    )

    models: Annotated[tuple[ModelSettings, ...], Field(min_length=1)] = (
        ModelSettings(id=EMBEDDED, source=EMBEDDED),
    )
    """The first is the default model, and the one that readiness asks."""

    var_dir: Path = Path("var")
    """Folder in which a single node keeps its database and logs. For this service alone: it is
    closed to other users."""

    database_url: str = ""
    """SQLAlchemy URL of the ledger; empty means SQLite in ``var_dir``. ``env:NAME`` takes it from
    the environment variable NAME and fails without it, so that no cluster falls back to a file on
    each node."""

    database_timeout_s: Annotated[float, Field(gt=0, le=10)] = 5.0
    """How long one ledger write may take before the request is refused. A rate window takes no
    longer wait than 10 s for a clock that is right."""

    charges_kept_days: Annotated[int, Field(ge=1, le=36_500)] = 90
    """After this many days charges become sums of a day, per key and model."""

    free_credit_micro_dollars: Annotated[int, Field(ge=0, le=1_000_000_000_000)] = 0
    """What a new tenant is granted unless its operator names an amount."""

    metering: bool = True
    """False charges nobody and limits nobody: only for measuring what metering costs."""

    key_cache_s: Annotated[float, Field(ge=0, le=5)] = 5.0
    """How long a gateway may trust a key without asking the database: revocation takes this."""

    events_url: Annotated[str, Field(pattern=r"^(https?://[^\s]+)?$")] = ""
    """Where events about charges and low credit are posted; empty means that there are none."""

    events_token: SecretStr = SecretStr("")
    """Sent there as ``Authorization: Bearer``; empty sends none. Only as ``env:NAME``: Ray logs the
    arguments of an application."""

    body_bytes_max: Annotated[int, Field(ge=1_000)] = 10_000_000
    documents_per_request_max: Annotated[int, Field(ge=1)] = 1_000
    query_characters_max: Annotated[int, Field(ge=1)] = 32_768

    request_timeout_s: Annotated[float, Field(gt=0)] = 30.0
    """Time a request gets when it does not ask for another with ``x-request-timeout-s``."""

    request_timeout_s_max: Annotated[float, Field(gt=0, le=100)] = 60.0
    """Longest time a client may ask for; the proxy ends connections at 120 s."""

    body_timeout_s: Annotated[float, Field(gt=0, le=60)] = 10.0
    """How long the body of a request may take to arrive, whatever time the request asks for."""

    reservation_margin_s: Annotated[float, Field(ge=1)] = 30.0
    """A reservation outlives its request's deadline by this, then it expires."""

    body_bytes_held_max: Annotated[int, Field(ge=1_000)] = 250_000_000
    """Bytes of request bodies that one gateway replica may hold at once."""

    gate_tokens_max: Annotated[int, Field(ge=1)] = 8_000_000
    """Tokens one gateway replica may hold at once, waiting or running (about 4 bytes each), and a
    tenant a quarter of it. A request that is larger than that by itself enters only a gateway that
    has none of this tenant's."""

    dispatch: Literal["fair", "fifo"] = "fair"
    """``fair``: tenants and jobs take turns before the scorers. ``fifo``: all portions go at once,
    and wait at the scorers first come, first served: what ``fair`` is measured against."""

    portion_tokens_max: Annotated[int, Field(ge=16)] = 4_096
    """Most tokens of one portion: the unit of dispatch."""

    batch_tokens_max: Annotated[int, Field(ge=16)] = 8_192
    """Most tokens that one scorer replica collects into a batch (`@serve.batch`)."""

    forward_tokens_max: Annotated[int, Field(ge=16)] | None = None
    """Most tokens, padding included, in one forward pass; ``None`` takes what suits the device."""

    tokenizer_threads: Annotated[int, Field(ge=1, le=64)] = 2
    scorer_threads: Annotated[int, Field(ge=0, le=256)] = 0
    """CPU threads of one scorer replica; 0 takes all cores it can see. Ignored on CUDA."""

    @field_validator("database_url")
    @classmethod
    def _url_from_environment(cls, url: str) -> str:
        return _from_environment(url)

    @field_validator("events_url")
    @classmethod
    def _url_without_secrets(cls, url: str) -> str:
        if "@" in urlsplit(url).netloc:
            raise ValueError("names a user or a password, and Ray logs arguments: use events_token")
        return url

    @field_validator("events_token")
    @classmethod
    def _token_from_environment(cls, setting: SecretStr) -> SecretStr:
        told = setting.get_secret_value()
        if told and not told.startswith("env:"):
            raise ValueError("must be env:NAME, since Ray logs arguments")
        token = _from_environment(told)
        if not (token.isascii() and token.isprintable()) or " " in token:
            # What HTTP refuses, its libraries would repeat in their errors.
            raise ValueError("a token is printable ASCII without spaces")
        return SecretStr(token)

    @model_validator(mode="after")
    def _limits_fit_each_other(self) -> Self:
        problems = []
        names = [name for model in self.models for name in (model.id, *model.aliases)]
        if len(set(names)) < len(names):
            problems.append("models: an id or alias names two models, or one model twice")
        if any(EMBEDDED in model.aliases for model in self.models):
            problems.append(f"models: '{EMBEDDED}' names the default model and cannot be an alias")
        deployments = {model.deployment_name for model in self.models}
        if len(deployments) < len(self.models) or GATEWAY_DEPLOYMENT in deployments:
            problems.append("models: two deployments have the same name; set `deployment`")
        if self.request_timeout_s > self.request_timeout_s_max:
            problems.append("request_timeout_s is over request_timeout_s_max")
        if self.batch_tokens_max < self.portion_tokens_max:
            problems.append("batch_tokens_max is below portion_tokens_max: no portion would fit")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def resolved_database_url(self) -> str:
        """``database_url``, or SQLite at an absolute path: replicas start in other folders."""
        return self.database_url or self._default_database_url

    @property
    def ledger_is_in_var_dir(self) -> bool:
        """Whether the ledger is the default SQLite database, so that ``var_dir`` is needed."""
        return self.resolved_database_url == self._default_database_url

    @property
    def _default_database_url(self) -> str:
        return f"sqlite:///{(self.var_dir / 'rerank.db').absolute()}"


def _from_environment(setting: str) -> str:
    """What ``env:NAME`` stands for; anything else is itself."""
    scheme, _, name = setting.partition(":")
    if scheme != "env":
        return setting
    if not os.environ.get(name):
        raise ValueError(f"the environment variable {name} is not set")
    return os.environ[name]
