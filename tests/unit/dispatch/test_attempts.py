"""A portion whose replica dies, hangs or is slow is answered by another one, once."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from serve_app.dispatch import lateness
from serve_app.dispatch.attempts import ATTEMPTS_MAX, Attempts
from serve_app.dispatch.portions import cut
from serve_app.domain.clock import SystemClock
from serve_app.domain.errors import EngineFailure, ReplicaLost
from serve_app.domain.model import Portion, PortionScores
from serve_app.domain.model_card import ReplicaInfo
from serve_app.domain.tokenized import TokenizedJob
from serve_app.domain.units import Instant, RequestId, Seconds, Tokens
from tests.support.fakes import RecordingSink, a_pair, some_metrics, until

LATE_S = 0.03
DEADLINE = Instant(1e9)
PORTION = cut(RequestId("r1"), TokenizedJob.of([a_pair(0, 8)]), Tokens(512))[0].portion()

Behaviour = Callable[[], Awaitable[None]]


@pytest.fixture(autouse=True)
def soon_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lateness, "LATE_S_MIN", LATE_S)
    monkeypatch.setattr(lateness, "LATE_S_MAX", LATE_S)


async def answer() -> None:
    """Answer at once."""


async def die() -> None:
    raise ReplicaLost("killed")


async def die_late() -> None:
    await asyncio.sleep(3 * LATE_S)
    raise ReplicaLost("killed")


async def fail() -> None:
    raise EngineFailure("poison")


async def hang() -> None:
    await asyncio.sleep(60)


class Replicas:
    """Replicas that behave as given, one call after the other."""

    def __init__(self, *behaviours: Behaviour) -> None:
        self._behaviours = list(behaviours)
        self.calls = 0
        self.cancelled = 0

    async def score(
        self, portion: Portion, deadline: Instant, backlog_tokens: Tokens
    ) -> PortionScores:
        number, self.calls = self.calls, self.calls + 1
        try:
            await self._behaviours[number]()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return PortionScores((0.0,), str(number), Seconds(0), Seconds(0), 1_000)

    async def describe(self) -> ReplicaInfo:
        raise NotImplementedError


def attempts(replicas: Replicas, sink: RecordingSink | None = None) -> Attempts:
    return Attempts(replicas, Tokens(512), lambda: Tokens(0), some_metrics(sink), SystemClock())


async def first(replicas: Replicas, sink: RecordingSink | None = None) -> str:
    """Return the number of the call that answered."""
    scores = await attempts(replicas, sink).first_answer(PORTION, DEADLINE)
    return scores.replica_id


def test_an_answer_in_time_is_asked_for_once() -> None:
    replicas, sink = Replicas(answer), RecordingSink()

    assert asyncio.run(first(replicas, sink)) == "0"
    assert replicas.calls == 1
    assert not sink.values


def test_a_portion_whose_replica_hangs_is_answered_by_another_one() -> None:
    replicas, sink = Replicas(hang, answer), RecordingSink()

    assert asyncio.run(first(replicas, sink)) == "1"
    assert len(sink.values["rerank_portion_hedges"]) == 1
    assert "rerank_portion_retries" not in sink.values


def test_an_overtaken_call_stays_so_that_its_replica_is_avoided() -> None:
    async def run() -> tuple[int, int]:
        replicas = Replicas(hang, answer)
        await first(replicas)
        before_the_end = replicas.cancelled
        return before_the_end, replicas.calls

    assert asyncio.run(run()) == (0, 2)


def test_a_second_replica_that_hangs_is_overtaken_too() -> None:
    assert asyncio.run(first(Replicas(hang, hang, answer))) == "2"


def test_at_most_three_calls_run_for_a_portion() -> None:
    replicas = Replicas(*[hang] * 10)

    async def run() -> None:
        caller = asyncio.create_task(first(replicas))
        await until(lambda: replicas.calls == ATTEMPTS_MAX)
        await asyncio.sleep(4 * LATE_S)  # The last call is late, too.
        caller.cancel()
        await asyncio.gather(caller, return_exceptions=True)

    asyncio.run(run())

    assert replicas.calls == ATTEMPTS_MAX
    assert replicas.cancelled == ATTEMPTS_MAX


def test_without_budget_a_late_portion_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lateness, "EXTRA_PORTIONS_MAX", 0)

    async def slow() -> None:
        await asyncio.sleep(4 * LATE_S)

    replicas = Replicas(slow)

    assert asyncio.run(first(replicas)) == "0"
    assert replicas.calls == 1


def test_a_lost_replica_is_no_failure_while_another_one_may_answer() -> None:
    async def slow() -> None:
        await asyncio.sleep(4 * LATE_S)

    replicas, sink = Replicas(die_late, slow, slow), RecordingSink()

    assert asyncio.run(first(replicas, sink)) == "1"
    assert "rerank_portion_retries" not in sink.values


def test_a_portion_whose_replica_dies_is_sent_again() -> None:
    sink = RecordingSink()

    assert asyncio.run(first(Replicas(die, die, answer), sink)) == "2"
    assert len(sink.values["rerank_portion_retries"]) == 2


def test_the_third_loss_is_a_failure() -> None:
    with pytest.raises(ReplicaLost):
        asyncio.run(first(Replicas(die, die, die)))


def test_a_failure_of_the_model_is_raised_at_once() -> None:
    replicas = Replicas(fail)

    with pytest.raises(EngineFailure):
        asyncio.run(first(replicas))

    assert replicas.calls == 1


def test_a_cancelled_caller_cancels_its_calls() -> None:
    async def run() -> int:
        replicas = Replicas(hang)
        caller = asyncio.create_task(first(replicas))
        await asyncio.sleep(LATE_S / 3)
        caller.cancel()
        await asyncio.gather(caller, return_exceptions=True)
        await asyncio.sleep(0)
        return replicas.cancelled

    assert asyncio.run(run()) == 1
