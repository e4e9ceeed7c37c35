"""Portions go to the least loaded replica; Ray finds the replica of a call that was refused."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from ray.serve._private.common import DeploymentHandleSource, DeploymentID, ReplicaID
from ray.serve.request_router import PendingRequest, RunningReplica

from serve_app.deployments.least_loaded import LeastLoadedRouter
from serve_app.domain.model import INPUT_ID_BYTES, Portion
from serve_app.domain.units import RequestId

SCORER = DeploymentID("scorer", "model")


class Result:
    """What Ray returns for a call that was sent."""

    def __init__(self) -> None:
        self._done: list[Callable[[Any], None]] = []

    def add_done_callback(self, done: Callable[[Any], None]) -> None:
        self._done.append(done)

    async def end(self) -> None:
        for done in self._done:
            done(self)
        await asyncio.sleep(0)


class Router(LeastLoadedRouter):
    """A router of replicas that do not exist."""

    def __init__(self, replicas: int) -> None:
        super().__init__(
            deployment_id=SCORER,
            handle_source=DeploymentHandleSource.REPLICA,
            use_replica_queue_len_cache=True,
            create_replica_wrapper_func=None,
            initial_backoff_s=0.001,
        )
        self.initialize_state()
        self.probed: list[str] = []
        self.join(*(str(number) for number in range(replicas)))

    def join(self, *names: str) -> None:
        """Add replicas that answered a probe."""
        new = [self.create_replica_wrapper(_info(name)) for name in names]
        self.update_replicas([*self.curr_replicas.values(), *new])
        for each in new:
            self.on_new_queue_len_info(each.replica_id, 0)

    async def _probe_queue_lens(self, replicas: Any, backoff_index: int) -> Any:
        self.probed += [each.replica_id.unique_id for each in replicas]
        return [(each, 0) for each in replicas]

    async def route(self, *args: Any, is_retry: bool = False) -> tuple[str, Result]:
        """Route and send a call as Ray does. Return its replica and its result."""
        metadata = SimpleNamespace(internal_request_id="1", multiplexed_model_id="")
        call = PendingRequest(args=[*args], kwargs={}, metadata=metadata)
        replica = await self._choose_replica_for_request(call, is_retry=is_retry)
        result: Any = replica.try_send_request(call, with_rejection=True)
        self.on_send_request(replica.replica_id)
        return replica.replica_id.unique_id, result


def _info(name: str) -> Any:
    return SimpleNamespace(
        replica_id=ReplicaID(name, SCORER),
        multiplexed_model_ids=[],
        is_cross_language=False,
        get_actor_handle=lambda: None,
        node_id="node",
        availability_zone=None,
        max_ongoing_requests=100,
    )


def portion(tokens: int) -> Portion:
    return Portion(RequestId("r1"), bytes(tokens * INPUT_ID_BYTES), (tokens,), (1,))


@pytest.fixture(autouse=True)
def sending(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Ray send nothing."""
    monkeypatch.setattr(RunningReplica, "try_send_request", lambda *_, **_named: Result())


def test_portions_that_are_ready_at_once_go_to_different_replicas() -> None:
    async def scenario() -> None:
        router = Router(8)

        sent = await asyncio.gather(*(router.route(portion(100)) for _ in range(8)))

        assert sorted(name for name, _ in sent) == [str(number) for number in range(8)]

    asyncio.run(scenario())


def test_the_replica_with_the_fewest_tokens_gets_the_next_portion() -> None:
    async def scenario() -> None:
        router = Router(2)
        large, _ = await router.route(portion(1_000))

        small = [(await router.route(portion(100)))[0] for _ in range(9)]

        assert large not in small

    asyncio.run(scenario())


def test_a_portion_that_ended_does_not_count() -> None:
    async def scenario() -> None:
        router = Router(2)
        first, answer = await router.route(portion(1_000))
        await router.route(portion(900))
        await answer.end()

        assert (await router.route(portion(100)))[0] == first

    asyncio.run(scenario())


def test_idle_replicas_take_turns() -> None:
    async def scenario() -> None:
        router = Router(3)
        used = []
        for _ in range(6):
            name, answer = await router.route(portion(100))
            await answer.end()
            used.append(name)

        assert used[:3] == used[3:]
        assert len(set(used)) == 3

    asyncio.run(scenario())


def test_a_call_without_a_portion_is_no_load() -> None:
    async def scenario() -> None:
        router = Router(2)
        first, _ = await router.route()
        second, _ = await router.route(portion(100))

        assert first != second
        assert (await router.route(portion(100)))[0] == first

    asyncio.run(scenario())


def test_a_replica_that_is_unavailable_is_probed_before_it_gets_a_portion() -> None:
    async def scenario() -> None:
        router = Router(2)
        await asyncio.sleep(0)
        router.probed.clear()
        router.on_replica_actor_unavailable(ReplicaID("0", SCORER))

        assert [(await router.route(portion(100)))[0] for _ in range(3)] == ["1"] * 3
        await asyncio.sleep(0)
        assert set(router.probed) == {"0"}

    asyncio.run(scenario())


def test_a_refused_portion_is_sent_again() -> None:
    async def scenario() -> None:
        router = Router(2)

        assert (await router.route(portion(100), is_retry=True))[0] in {"0", "1"}

    asyncio.run(scenario())


def test_portions_wait_for_the_first_replica() -> None:
    async def scenario() -> None:
        router = Router(0)
        waiting = asyncio.gather(*(router.route(portion(100)) for _ in range(3)))
        await asyncio.sleep(0)
        assert not waiting.done()

        router.join("new")

        assert [name for name, _ in await asyncio.wait_for(waiting, 5)] == ["new"] * 3

    asyncio.run(scenario())


def test_a_dead_replica_gets_no_portions() -> None:
    async def scenario() -> None:
        router = Router(2)
        router.on_replica_actor_died(ReplicaID("0", SCORER))

        assert {(await router.route(portion(100)))[0] for _ in range(4)} == {"1"}

    asyncio.run(scenario())
