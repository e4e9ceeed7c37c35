"""Settings that take effect in running gateways."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from serve_app.domain.model import EMBEDDED
from serve_app.settings.models import Checkpoint, ModelSettings

UNUSED_AFTER_S = 120.0
"""After this time, longer than any timeout, all jobs of a removed revision have ended."""


class LiveSettings(BaseModel):
    """The ``user_config`` of the gateways: `serve deploy` changes it without replacing a replica.

    Jobs that were admitted before a change are completed with the old settings.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: Annotated[tuple[ModelSettings, ...], Field(min_length=1)] = (
        ModelSettings(id=EMBEDDED, checkpoint=Checkpoint(source=EMBEDDED)),
    )
    """The first is the default model, which also decides readiness."""

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
    """Longest time for a request body to arrive, whatever the request's timeout."""

    cors_allowed_origins: tuple[
        Annotated[str, Field(pattern=r"^(\*|[a-z][a-z0-9+.-]*://[^\s/*A-Z]+)$")], ...
    ] = ()
    """Origins whose web pages may call the API, such as ``https://app.example``, in lower case and
    without a path; ``*`` means any."""

    traces: Literal["none", "without_texts", "with_texts"] = "none"
    """Whether requests are traced, with or without queries and documents. OpenTelemetry's own
    variables ``OTEL_...`` set the collector and the share of the requests."""

    @model_validator(mode="after")
    def _limits_fit_each_other(self) -> Self:
        problems = list(_name_conflicts(self.models))
        revisions = [each for model in self.models for each in model.revisions]
        if len({each.application_name for each in revisions}) < len(revisions):
            problems.append("models: two applications have the same name; set `application`")
        if self.request_timeout_s > self.request_timeout_s_max:
            problems.append("request_timeout_s is above request_timeout_s_max")
        if problems:
            raise ValueError("; ".join(problems))
        return self


def _name_conflicts(models: Sequence[ModelSettings]) -> Iterator[str]:
    aliases = [alias.casefold() for model in models for alias in model.aliases]
    names = [*(model.id.casefold() for model in models), *aliases]
    if len(set(names)) < len(names):
        yield "models: an id or alias, in any letter case, is used more than once"
    if EMBEDDED in aliases:
        yield f"models: '{EMBEDDED}' names the default model and must not be an alias"
