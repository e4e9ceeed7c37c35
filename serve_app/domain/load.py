"""The present load of an installation, for its operators."""

from collections.abc import Mapping
from dataclasses import dataclass

from serve_app.domain.units import ModelId, Tokens

ReplicaStates = Mapping[str, int]
"""Number of replicas in each state, as Ray names it, such as ``RUNNING``."""


@dataclass(frozen=True, slots=True)
class ModelLoad:
    """The load of one model."""

    model: ModelId
    replicas: ReplicaStates | None
    """Of the whole cluster. ``None`` if it is not known now."""

    backlog_tokens: Tokens
    """Queued in this gateway."""

    inflight_tokens: Tokens
    """Sent by this gateway to replicas that have not answered yet."""

    replica_tokens_per_s: float | None
    """Recent speed of one replica, as reported with its last answer. ``None`` before the first."""


@dataclass(frozen=True, slots=True)
class ServiceLoad:
    """The load of an installation as one gateway sees it."""

    gateway: str
    """Unique id of that gateway."""

    gateways: ReplicaStates | None
    """As `ModelLoad.replicas`."""

    models: tuple[ModelLoad, ...]
