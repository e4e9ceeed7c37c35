"""Settings of the scorers of one model or canary."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from serve_app.settings.models import Checkpoint


class ScorerSettings(BaseSettings):
    """The ``args`` of a model's application."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix="RERANK_")

    checkpoint: Checkpoint
    """The same as in the ``user_config`` of the gateways."""

    batch_tokens_max: Annotated[int, Field(ge=16)] = 32_768
    """Most tokens that one scorer replica collects into a batch. If its device scores fewer tokens
    in 0.15 s, that number is the limit."""

    forward_tokens_max: Annotated[int, Field(ge=16)] | None = None
    """Most tokens in one forward pass, including padding; ``None`` means ``batch_tokens_max`` on a
    GPU, 2,048 on CPUs with AMX and 512 on other CPUs."""

    portion_tokens_max: Annotated[int, Field(ge=16)] = 16_384
    """Most tokens of one portion, the unit of dispatch. Portions are smaller, down to 512 tokens,
    if a replica needs more than 0.15 s for them."""

    scorer_threads: Annotated[int, Field(ge=0, le=256)] = 0
    """CPU threads of one scorer replica; 0 means all visible cores, at most the whole cores of a
    container's CPU limit. Ignored on CUDA."""

    var_dir: Path = Path("var")
    """Folder for the database and logs of a single node, and on every node for models converted for
    OpenVINO. Use it for nothing else: the service removes the permissions of other users."""

    @model_validator(mode="after")
    def _limits_fit_each_other(self) -> Self:
        if self.batch_tokens_max < self.portion_tokens_max:
            raise ValueError("batch_tokens_max is below portion_tokens_max: no portion would fit")
        return self
