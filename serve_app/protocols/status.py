"""The bodies of ``GET /health`` and ``GET /ready``."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from serve_app.domain.model_card import Readiness


class HealthBody(BaseModel):
    """The process is alive. Its dependencies are not checked."""

    status: Literal["ok"] = "ok"


class ModelReadiness(BaseModel):
    """Whether a replica of one model answers."""

    id: str
    ready: bool


class ReadinessBody(BaseModel):
    """Whether a request would be answered now, and the state of each dependency."""

    ready: bool
    ledger: Annotated[bool, Field(description="Whether the ledger database answers.")]
    models: Annotated[list[ModelReadiness], Field(description="Only the first decides ``ready``.")]


def render_health() -> bytes:
    return HealthBody().model_dump_json().encode()


def render_readiness(readiness: Readiness) -> bytes:
    models = [ModelReadiness(id=model, ready=ready) for model, ready in readiness.models]
    body = ReadinessBody(ready=readiness.ready, ledger=readiness.ledger, models=models)
    return body.model_dump_json().encode()
