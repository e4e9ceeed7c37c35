"""Adapt a scorer's Serve handle to `serve_app.ports.PortionScorer`, and translate Ray's errors.

In by-reference mode Ray re-raises a `RerankError` as a subclass made at run time; over gRPC the
error arrives unchanged. This module raises only the original class with its own arguments, and no
error of Ray.
"""

import asyncio
from typing import TypeVar

import grpc
from ray import exceptions as ray_errors
from ray.serve import exceptions as serve_errors
from ray.serve.handle import DeploymentHandle, DeploymentResponse

from serve_app.domain import errors
from serve_app.domain.clock import Clock
from serve_app.domain.model import Portion, PortionScores
from serve_app.domain.model_card import ReplicaInfo
from serve_app.domain.units import Instant, Tokens
from serve_app.scaling.backlogs import Backlog
from serve_app.telemetry import span_attributes
from serve_app.telemetry.traces import SpanKind, span

T = TypeVar("T")

DESCRIBE_TIMEOUT_S = 5.0
BUSY_RETRY_AFTER_S = 1

_OURS = {
    member.__name__: member
    for member in vars(errors).values()
    if isinstance(member, type) and issubclass(member, errors.RerankError)
}


class HandleScorer:
    """Calls one model's replicas."""

    def __init__(self, handle: DeploymentHandle, gateway: str, clock: Clock) -> None:
        self._handle = handle
        self._gateway = gateway
        self._clock = clock
        self.info: ReplicaInfo | None = None
        self._answered_at = Instant(float("-inf"))

    @property
    def answered_at(self) -> Instant:
        return self._answered_at

    async def score(
        self, portion: Portion, deadline: Instant, backlog_tokens: Tokens
    ) -> PortionScores:
        remaining_s = deadline - self._clock.instant()
        backlog = Backlog(self._gateway, backlog_tokens)
        with span("portion", SpanKind.CLIENT) as call:
            context: dict[str, str] = {}
            if call is not None:
                call.attributes |= span_attributes.of_portion(portion)
                context["traceparent"] = call.context
            response = self._handle.score.remote(portion, backlog, **context)
            scores: PortionScores = await self._noted(response, remaining_s)
            if call is not None:
                call.attributes["rerank.replica"] = scores.replica_id
        return scores

    async def describe(self) -> ReplicaInfo:
        response = self._handle.describe.remote()
        info: ReplicaInfo = await self._noted(response, DESCRIBE_TIMEOUT_S)
        self.info = info
        return info

    async def _noted(self, response: DeploymentResponse[T], timeout_s: float) -> T:
        try:
            answer: T = await _call(response, timeout_s)
        except errors.NoReplica:
            self._answered_at = Instant(float("-inf"))
            raise
        self._answered_at = self._clock.instant()
        return answer


async def _call(response: DeploymentResponse[T], timeout_s: float) -> T:
    """Await a response, and cancel the remote call when its caller stops waiting.

    Every call has its own timeout, because Ray takes half a minute to notice a network partition.
    """
    try:
        async with asyncio.timeout(timeout_s):
            answer: T = await response
            return answer
    except TimeoutError:
        response.cancel()
        raise errors.DeadlineExceeded(round(max(timeout_s, 0), 3)) from None
    except asyncio.CancelledError:
        response.cancel()
        task = asyncio.current_task()
        if task is not None and task.cancelling() == 0:
            # This task was not cancelled, so the replica cancelled the call.
            raise errors.ReplicaLost("the call was cancelled by its replica") from None
        raise
    except Exception as error:
        raise translate(error) from error


def as_ours(error: errors.RerankError) -> errors.RerankError:
    """Return the error in its original class."""
    for cls in type(error).__mro__:
        if _OURS.get(cls.__name__) is cls:
            copy: errors.RerankError = cls(*error.args)
            return copy
    raise AssertionError("every RerankError has a class of ours in its MRO")


def translate(error: BaseException) -> errors.RerankError:
    # The class that Ray makes from both errors has lost the arguments; its cause has them.
    cause = error.cause if isinstance(error, ray_errors.RayTaskError) else error
    if isinstance(cause, errors.RerankError):
        return as_ours(cause)
    reason = f"{type(error).__name__}: {error}"
    if _replica_is_lost(error):
        return errors.ReplicaLost(reason)
    if isinstance(error, serve_errors.BackPressureError):
        return errors.Overloaded(BUSY_RETRY_AFTER_S)
    if isinstance(
        error, serve_errors.DeploymentUnavailableError | serve_errors.ReplicaUnavailableError
    ):
        return errors.NoReplica(reason)
    return errors.EngineFailure(reason)


def _replica_is_lost(error: BaseException) -> bool:
    if isinstance(error, grpc.RpcError):
        return _code(error) in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    # A cancellation by this process raises CancelledError, so here the replica is gone.
    return isinstance(error, ray_errors.RayActorError | serve_errors.RequestCancelledError)


def _code(error: grpc.RpcError) -> grpc.StatusCode | None:
    code = getattr(error, "code", None)
    return code() if callable(code) else None
