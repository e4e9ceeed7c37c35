"""The body of ``GET /admin/v1/status``."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from serve_app.domain.load import ServiceLoad
from serve_app.domain.model_card import ModelCard

States = Annotated[
    dict[str, int] | None,
    Field(
        description="Replicas of the whole cluster by state, as Ray names it. "
        "Null if Ray's controller did not answer in time."
    ),
]


class CodeCount(BaseModel):
    """Answers to scoring requests with one code."""

    code: Annotated[str, Field(description="Error code, or `ok`.")]
    requests: int


class ModelStatus(BaseModel):
    """The present load of one model. Its tokens are those of the gateway that answers."""

    id: str
    ready: bool
    device: str | None
    precision: str
    replicas: States
    backlog_tokens: Annotated[int, Field(description="Tokens queued for the replicas.")]
    inflight_tokens: Annotated[int, Field(description="Tokens on the replicas, not answered yet.")]
    replica_tokens_per_s: Annotated[
        float | None,
        Field(description="Recent speed of one replica. Null before its first answer."),
    ]


class StatusObject(BaseModel):
    """The load of the installation as seen by the gateway that answers this request."""

    object: Literal["status"] = "status"
    gateway: Annotated[str, Field(description="Unique id of the gateway.")]
    gateways: States
    ledger: Annotated[bool, Field(description="Whether the ledger database answers.")]
    last_hour: Annotated[
        list[CodeCount],
        Field(description="Answers of this gateway in the last hour, most frequent code first."),
    ]
    models: list[ModelStatus]


def render_status(
    load: ServiceLoad, cards: tuple[ModelCard, ...], codes: Mapping[str, int], *, ledger: bool
) -> bytes:
    described = {card.id: card for card in cards}
    body = StatusObject(
        gateway=load.gateway,
        gateways=_states(load.gateways),
        ledger=ledger,
        last_hour=[CodeCount(code=code, requests=number) for code, number in codes.items()],
        models=[
            ModelStatus(
                id=each.model,
                ready=described[each.model].ready,
                device=described[each.model].device,
                precision=described[each.model].precision,
                replicas=_states(each.replicas),
                backlog_tokens=each.backlog_tokens,
                inflight_tokens=each.inflight_tokens,
                replica_tokens_per_s=each.replica_tokens_per_s,
            )
            for each in load.models
        ],
    )
    return body.model_dump_json().encode()


def _states(states: Mapping[str, int] | None) -> dict[str, int] | None:
    return None if states is None else dict(states)
