"""What operators see of an installation's load: this gateway's queues, and Ray's replicas."""

import asyncio
from collections.abc import Mapping

from ray import serve
from ray.exceptions import RayError

from serve_app.deployments.gateway_models import GatewayModel
from serve_app.domain.clock import Clock
from serve_app.domain.load import ModelLoad, ReplicaStates, ServiceLoad
from serve_app.domain.units import Instant, ModelId
from serve_app.settings import GATEWAY, SCORER

READ_EVERY_S = 2.0
READ_TIMEOUT_S = 2.0

States = Mapping[tuple[str, str], ReplicaStates]
"""By application and deployment."""


class Replicas:
    """The replicas of all deployments, read from Ray at most every `READ_EVERY_S`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._read_at = Instant(float("-inf"))
        self._reading: asyncio.Task[States] | None = None

    async def states(self) -> States | None:
        """Return ``None`` if the controller fails or does not answer in time."""
        due = self._clock.instant() - self._read_at >= READ_EVERY_S
        if self._reading is None or (self._reading.done() and due):
            self._read_at = self._clock.instant()
            self._reading = asyncio.create_task(asyncio.to_thread(_read))
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                # A thread cannot be cancelled, and the next caller waits for it.
                return await asyncio.shield(self._reading)
        except (TimeoutError, RayError):
            return None


def _read() -> States:
    return {
        (application, deployment): {str(state): n for state, n in each.replica_states.items() if n}
        for application, overview in serve.status().applications.items()
        for deployment, each in overview.deployments.items()
    }


class Monitor:
    """Implements `serve_app.http.service.Monitor`."""

    def __init__(
        self,
        gateway: str,
        application: str,
        models: Mapping[ModelId, GatewayModel],
        replicas: Replicas,
    ) -> None:
        self._gateway = gateway
        self._application = application
        self._models = models
        self._replicas = replicas

    async def load(self) -> ServiceLoad:
        states = await self._replicas.states()

        def of(application: str, deployment: str) -> ReplicaStates | None:
            return None if states is None else states.get((application, deployment), {})

        models = []
        for name, model in self._models.items():
            dispatcher = model.live.dispatcher
            models.append(
                ModelLoad(
                    model=name,
                    replicas=of(model.settings.application_name, SCORER),
                    backlog_tokens=dispatcher.backlog_tokens,
                    inflight_tokens=dispatcher.inflight_tokens,
                    replica_tokens_per_s=dispatcher.replica_tokens_per_s,
                )
            )
        return ServiceLoad(self._gateway, of(self._application, GATEWAY), tuple(models))
