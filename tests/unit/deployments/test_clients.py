"""Every error from a handle is translated to an error of serve_app, with its own arguments."""

import asyncio
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from ray import exceptions as ray_errors
from ray.serve import exceptions as serve_errors
from ray.serve._private.common import DeploymentID

from serve_app.deployments.clients import HandleScorer, translate
from serve_app.domain import errors
from serve_app.domain.model import Portion, PortionScores
from serve_app.domain.model_card import ReplicaInfo
from serve_app.domain.units import Credits, Instant, RequestId, Seconds, Tokens
from serve_app.telemetry.traces import Traces
from tests.support.fakes import FakeClock
from tests.support.traces import RecordingCollector

PORTION, NONE = Portion(RequestId("r1"), b"", (), ()), Tokens(0)


class RpcError(grpc.RpcError):  # type: ignore[misc]  # grpc is untyped
    def __init__(self, code: grpc.StatusCode) -> None:
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code


def as_ray_raises_it(error: Exception) -> Exception:
    """Return the error as Ray raises it by reference: in a class derived from Ray's and ours."""
    task_error: Any = ray_errors.RayTaskError("score", "Traceback on 10.0.0.7", error)
    raised: Exception = task_error.as_instanceof_cause()
    return raised


@pytest.mark.parametrize(
    "error",
    [
        errors.EngineFailure("boom"),
        errors.OutOfCredit(Credits(50), Credits(49)),
        errors.DeadlineExceeded(1.5),
        errors.ReplicaLost("killed"),
    ],
)
@pytest.mark.parametrize("wrap", [lambda error: error, as_ray_raises_it], ids=["gRPC", "reference"])
def test_our_errors_keep_their_class_and_arguments(error: errors.RerankError, wrap: Any) -> None:
    translated = translate(wrap(error))

    assert type(translated) is type(error)
    assert translated.args == error.args


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (ray_errors.ActorDiedError(), errors.ReplicaLost),
        (ray_errors.ActorUnavailableError("gone", b"0" * 16), errors.ReplicaLost),
        (RpcError(grpc.StatusCode.UNAVAILABLE), errors.ReplicaLost),
        (RpcError(grpc.StatusCode.RESOURCE_EXHAUSTED), errors.EngineFailure),
        (serve_errors.RequestCancelledError("id"), errors.ReplicaLost),
        (serve_errors.BackPressureError(1, 1), errors.Overloaded),
        (serve_errors.DeploymentUnavailableError(DeploymentID("scorer")), errors.NoReplica),
        (RuntimeError("a bug on the replica"), errors.EngineFailure),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_errors_of_ray_are_translated(error: Exception, meaning: type[errors.RerankError]) -> None:
    assert type(translate(error)) is meaning


class FakeResponse:
    """The response of a handle's call; ``answer`` may be an exception, or ``None`` to hang."""

    def __init__(self, answer: object) -> None:
        self._answer = answer
        self.cancelled = False

    def __await__(self) -> Any:
        if self._answer is None:
            yield from asyncio.Event().wait().__await__()
        if isinstance(self._answer, BaseException):
            raise self._answer
        return self._answer

    def cancel(self) -> None:
        self.cancelled = True


def scorer(response: FakeResponse) -> HandleScorer:
    method = SimpleNamespace(remote=lambda *_: response)
    handle: Any = SimpleNamespace(score=method, describe=method)
    return HandleScorer(handle, "g1", FakeClock())


def test_a_call_that_times_out_is_cancelled_in_the_replica() -> None:
    response = FakeResponse(None)

    with pytest.raises(errors.DeadlineExceeded):
        asyncio.run(scorer(response).score(PORTION, Instant(1_000.01), NONE))

    assert response.cancelled


def test_cancelling_the_caller_cancels_the_call() -> None:
    response = FakeResponse(None)

    async def go_away() -> None:
        call = asyncio.create_task(scorer(response).score(PORTION, Instant(1_030), NONE))
        await asyncio.sleep(0)
        call.cancel()
        await call

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(go_away())

    assert response.cancelled


def test_a_call_cancelled_by_its_replica_is_a_lost_replica() -> None:
    with pytest.raises(errors.ReplicaLost):
        asyncio.run(
            scorer(FakeResponse(asyncio.CancelledError())).score(PORTION, Instant(1_030), NONE)
        )


def test_the_time_of_the_last_answer_is_kept_until_the_replicas_are_gone() -> None:
    info = ReplicaInfo("r", "cpu", "float32", "a fake", "sigmoid")
    remembering = scorer(FakeResponse(info))
    assert remembering.answered_at == float("-inf")

    assert asyncio.run(remembering.describe()) == info
    assert remembering.answered_at == Instant(1_000)

    gone: Any = SimpleNamespace(remote=lambda *_: FakeResponse(ray_errors.ActorDiedError()))
    remembering._handle = SimpleNamespace(describe=gone)
    with pytest.raises(errors.ReplicaLost):
        asyncio.run(remembering.describe())
    assert remembering.answered_at == float("-inf")


def test_a_traced_call_passes_its_context_on_and_another_one_none() -> None:
    """A scorer of an older version does not know the argument."""
    calls: list[dict[str, str]] = []
    scores = PortionScores((), "replica-7", Seconds(0), Seconds(0), 0.0)

    def remote(*_: object, **context: str) -> FakeResponse:
        calls.append(context)
        return FakeResponse(scores)

    handle: Any = SimpleNamespace(score=SimpleNamespace(remote=remote))
    client = HandleScorer(handle, "g1", FakeClock())
    collector = RecordingCollector()
    traces = Traces(collector, FakeClock())

    async def both() -> None:
        await client.score(PORTION, Instant(1_030), NONE)
        trace = traces.begin({}, Instant(1_000))
        assert trace is not None
        await client.score(PORTION, Instant(1_030), NONE)
        traces.end(trace, {}, failed=False)

    asyncio.run(both())

    _, call = collector.spans
    assert calls == [{}, {"traceparent": call.context}]
    assert call.attributes == {
        "rerank.pairs": 0,
        "rerank.tokens": 0,
        "rerank.replica": "replica-7",
    }
