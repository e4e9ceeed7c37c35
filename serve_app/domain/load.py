"""The present load of an installation, for its operators."""

from collections.abc import Mapping
from dataclasses import dataclass

from serve_app.domain.units import ModelId, Tokens

ReplicaStates = Mapping[str, int]
"""Number of replicas in each state, as Ray names it, such as ``RUNNING``."""


@dataclass(frozen=True, slots=True)
class ModelLoad:
    """The load of one model in one gateway."""

    model: ModelId
    replicas: ReplicaStates | None
    """Of the whole cluster; ``None`` if not known."""

    backlog_tokens: Tokens
    inflight_tokens: Tokens
    """Sent to replicas, but not answered yet."""

    replica_tokens_per_s: float | None
    """Recent speed of one replica; ``None`` before its first answer."""


@dataclass(frozen=True, slots=True)
class ServiceLoad:
    """The load as one gateway sees it."""

    gateway: str
    gateways: ReplicaStates | None
    models: tuple[ModelLoad, ...]
