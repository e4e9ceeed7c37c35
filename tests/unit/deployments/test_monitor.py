"""The states of replicas, when Ray's controller answers late or not at all."""

import asyncio
import threading

import pytest
from ray.exceptions import RayActorError

from serve_app.deployments import monitor
from serve_app.deployments.monitor import READ_EVERY_S, Replicas, States
from tests.support.fakes import FakeClock

FOUND: States = {("rerank", "gateway"): {"RUNNING": 2}}


def test_the_controller_is_asked_at_most_every_two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def read() -> States:
        calls.append(1)
        return FOUND

    async def test() -> None:
        clock = FakeClock()
        replicas = Replicas(clock)
        for _ in range(3):
            assert await replicas.states() == FOUND
        clock.advance(READ_EVERY_S)
        assert await replicas.states() == FOUND

    monkeypatch.setattr(monitor, "_read", read)
    asyncio.run(test())

    assert len(calls) == 2


def test_a_controller_that_hangs_is_asked_by_one_thread_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[int] = []
    answers = threading.Event()

    def read() -> States:
        calls.append(1)
        answers.wait()
        return FOUND

    async def test() -> None:
        clock = FakeClock()
        replicas = Replicas(clock)
        for _ in range(3):
            assert await replicas.states() is None
            clock.advance(READ_EVERY_S)
        answers.set()
        assert await replicas.states() == FOUND

    monkeypatch.setattr(monitor, "_read", read)
    monkeypatch.setattr(monitor, "READ_TIMEOUT_S", 0.3)
    asyncio.run(test())

    assert len(calls) == 1


def test_a_controller_that_died_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def read() -> States:
        raise RayActorError

    monkeypatch.setattr(monitor, "_read", read)

    assert asyncio.run(Replicas(FakeClock()).states()) is None
