"""Settings of the gateways and the ledger."""

import os
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """The ``args`` of the gateways, which the command line uses, too."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix="RERANK_",
        hide_input_in_errors=True,  # Inputs may hold the database password or the sink's token.
    )

    var_dir: Path = Path("var")
    """Folder for the database and logs of a single node, and on every node for models converted for
    OpenVINO. Use it for nothing else: the service removes the permissions of other users."""

    database_url: str = ""
    """SQLAlchemy URL of the ledger; empty means SQLite in ``var_dir``. ``env:NAME`` reads it from
    the environment variable NAME, which must be set, so that a cluster never falls back to a file
    per node."""

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
    """URL to which events about charges and low credit are posted; empty means none."""

    events_token: SecretStr = SecretStr("")
    """Token sent to that URL as ``Authorization: Bearer``; empty sends none. It must be given as
    ``env:NAME``, because Ray logs ``args``."""

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
    """Most tokens of one portion, the unit of dispatch. Portions are smaller, down to 512 tokens,
    if a replica needs more than 0.15 s for them."""

    tokenizer_threads: Annotated[int, Field(ge=1, le=64)] = 2
    """CPU threads of one gateway replica that tokenize small jobs. As many more parse large bodies
    and write large answers, and a model's process for large jobs has as many."""

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
            # HTTP libraries show an invalid token in errors.
            raise ValueError("must be printable ASCII without spaces")
        return SecretStr(token)

    @property
    def resolved_database_url(self) -> str:
        """SQLite gets an absolute path, because replicas start in other folders."""
        return self.database_url or self._default_database_url

    @property
    def ledger_is_in_var_dir(self) -> bool:
        return self.resolved_database_url == self._default_database_url

    @property
    def _default_database_url(self) -> str:
        return f"sqlite:///{(self.var_dir / 'rerank.db').absolute()}"


def _from_environment(setting: str) -> str:
    scheme, _, name = setting.partition(":")
    if scheme != "env":
        return setting
    if not os.environ.get(name):
        raise ValueError(f"the environment variable {name} is not set")
    return os.environ[name]
