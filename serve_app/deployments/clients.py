"""A scorer's Serve handle as `serve_app.ports.PortionScorer`; Ray's errors become ours here.

By reference Ray re-raises an error of ours as a subclass made at run time, whose ``str`` is the
remote traceback; over gRPC it arrives as it was. What leaves this module is our own class with its
own arguments, and nothing of Ray's.
"""

import asyncio
from typing import TypeVar

import grpc
from ray import exceptions as ray_errors
from ray.serve import exceptions as serve_errors
from ray.serve.handle import DeploymentHandle, DeploymentResponse

from serve_app.domain import errors
from serve_app.domain.clock import Clock
from serve_app.domain.model import Portion, PortionScores, ReplicaInfo
from serve_app.domain.units import Instant

T = TypeVar("T")

DESCRIBE_TIMEOUT_S = 5.0
BUSY_RETRY_AFTER_S = 1

_OURS = {
    member.__name__: member
    for member in vars(errors).values()
    if isinstance(member, type) and issubclass(member, errors.RerankError)
}


class HandleScorer:
    """One model's replicas, reached through their deployment's handle."""

    def __init__(self, handle: DeploymentHandle, clock: Clock) -> None:
        self._handle = handle
        self._clock = clock
        self._answered_at = Instant(float("-inf"))

    @property
    def answered_at(self) -> Instant:
        """When any replica last answered; minus infinity if none has, or none is there any more."""
        return self._answered_at

    async def score(self, portion: Portion, deadline: Instant) -> PortionScores:
        remaining_s = deadline - self._clock.instant()
        scores: PortionScores = await self._noted(self._handle.score.remote(portion), remaining_s)
        return scores

    async def describe(self) -> ReplicaInfo:
        response = self._handle.describe.remote()
        info: ReplicaInfo = await self._noted(response, DESCRIBE_TIMEOUT_S)
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
    """Await a handle's response, and cancel the remote call when we stop waiting for it.

    A partition takes Ray half a minute to notice, so every call has a timeout of its own.
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
            # Nobody cancelled us: the call was cut off at its other end.
            raise errors.ReplicaLost("the call was cancelled by its replica") from None
        raise
    except Exception as error:  # Over gRPC a replica's error arrives as it was.
        raise translate(error) from error


def as_ours(error: errors.RerankError) -> errors.RerankError:
    """The same error in our own class, without what Ray mixed in."""
    for cls in type(error).__mro__:
        if _OURS.get(cls.__name__) is cls:
            copy: errors.RerankError = cls(*error.args)
            return copy
    raise AssertionError("every RerankError has a class of ours in its MRO")


def translate(error: BaseException) -> errors.RerankError:
    """What an error that came over a handle means to the pipeline."""
    # Ray's own mixture of its error and ours has lost our arguments; the cause inside has them.
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
    # We did not cancel the request (that raises CancelledError here): its replica went away.
    return isinstance(error, ray_errors.RayActorError | serve_errors.RequestCancelledError)


def _code(error: grpc.RpcError) -> grpc.StatusCode | None:
    code = getattr(error, "code", None)
    return code() if callable(code) else None
