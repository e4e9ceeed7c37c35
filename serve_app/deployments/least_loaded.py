"""Handles of scorers that send each portion to the replica with the fewest tokens of this gateway.

Ray's own router compares two random replicas by their requests, which Ray 2.60 counts wrongly over
gRPC: a replica's report of its queue arrives only with the answer. Besides, portions that become
ready together are all routed before any of them is counted.

With HAProxy, Ray refuses another router in the config of an application's only deployment, so the
gateway sets it in its handles.
"""

import asyncio
from itertools import count
from typing import Any

from ray.serve._private.default_impl import create_router
from ray.serve._private.request_router import PowerOfTwoChoicesRequestRouter
from ray.serve.handle import DeploymentHandle
from ray.serve.request_router import PendingRequest, RunningReplica

from serve_app.dispatch.replica_load import ReplicaLoad
from serve_app.domain.model import Portion
from serve_app.domain.units import Tokens
from serve_app.settings import SCORER


def scorer_handle(application: str) -> DeploymentHandle:
    return DeploymentHandle(SCORER, application, _create_router=_create_router)


def _create_router(**options: Any) -> Any:
    router = create_router(**options, request_router_class=LeastLoadedRouter)
    # Reading it creates it. Otherwise the class in the deployment's config may replace this one.
    assert router._asyncio_router.request_router is not None
    return router


class LoadedReplica(RunningReplica):
    """A replica whose load is known."""

    def __init__(self, info: Any, turns: "count[int]") -> None:
        super().__init__(info)
        self.load = ReplicaLoad()
        self._turns = turns
        self._loop = asyncio.get_running_loop()

    def try_send_request(self, pr: PendingRequest, with_rejection: bool) -> Any:  # noqa: FBT001 - as in Ray
        """Count the call's tokens until it ends."""
        result = super().try_send_request(pr, with_rejection=with_rejection)
        tokens = _tokens(pr)
        self.load.add(tokens, next(self._turns))
        # Ray may call back on a thread of its own.
        result.add_done_callback(
            lambda _: self._loop.call_soon_threadsafe(self.load.remove, tokens)
        )
        return result


class LeastLoadedRouter(PowerOfTwoChoicesRequestRouter):
    """Chooses the least loaded of all replicas.

    Ray's own choice remains for calls that a replica did not accept, and while it is not known
    whether all answer: it probes them.
    """

    def initialize_state(self, **_kwargs: Any) -> None:
        self._turns = count(1)

    def create_replica_wrapper(self, replica_info: Any) -> LoadedReplica:
        return LoadedReplica(replica_info, self._turns)

    async def _choose_replica_for_request(
        self, pending_request: PendingRequest, *, is_retry: bool = False
    ) -> RunningReplica:
        """Return the replica for a call.

        The router sends the call before anything else runs on the event loop, so that the next
        choice counts it.
        """
        if is_retry or not self._all_answer():
            return await super()._choose_replica_for_request(pending_request, is_retry=is_retry)
        return min(self._replicas_list, key=lambda each: each.load.rank)

    def _all_answer(self) -> bool:
        known = self.replica_queue_len_cache
        return bool(self._replicas_list) and all(
            known.get(each.replica_id) is not None for each in self._replicas_list
        )


def _tokens(call: PendingRequest) -> Tokens:
    """Calls of other methods have 0 tokens."""
    portion = call.args[0] if call.args else None
    return portion.tokens if isinstance(portion, Portion) else Tokens(0)
