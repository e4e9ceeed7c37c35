"""The dispatcher joins logits in request order and survives dead replicas."""

import asyncio
from collections.abc import Sequence

import pytest

from serve_app.dispatch.dispatcher import Dispatcher
from serve_app.domain.errors import EngineFailure, ReplicaLost
from serve_app.domain.model import JobScores, Portion, PortionScores, TokenizedJob
from serve_app.domain.units import Instant, Tokens
from tests.fakes import FakePortionScorer, RecordingSink, a_job, a_pair, some_metrics

TOKENIZED = TokenizedJob(tuple(a_pair(index, 3 + 7 * index % 5) for index in range(40)))


def by_first_token(portion: Portion) -> list[float]:
    """The fake pairs carry their document's index plus one as every token id."""
    logits, offset = [], 0
    for length in portion.lengths:
        token = int.from_bytes(portion.input_ids[4 * offset : 4 * offset + 4], "little")
        logits.append(token - 1.0)
        offset += length
    return logits


def dispatch(scorer: FakePortionScorer, sink: RecordingSink | None = None) -> JobScores:
    dispatcher = Dispatcher(scorer, Tokens(20), some_metrics(sink))
    return asyncio.run(dispatcher.score(a_job(), TOKENIZED))


def test_logits_come_back_in_request_order_from_many_portions() -> None:
    scorer = FakePortionScorer(by_first_token)

    scores = dispatch(scorer)

    assert scores.logits == tuple(float(index) for index in range(40))
    assert len(scorer.attempts) > 5


def test_a_portion_whose_replica_dies_is_sent_again() -> None:
    lost: list[Portion] = []

    def die_once(portion: Portion) -> Sequence[float]:
        if not lost:
            lost.append(portion)
            raise ReplicaLost("killed")
        return by_first_token(portion)

    sink = RecordingSink()
    scorer = FakePortionScorer(die_once)

    scores = dispatch(scorer, sink)

    assert scores.logits == tuple(float(index) for index in range(40))
    assert scorer.attempts.count(lost[0]) == 2
    assert len(sink.values["rerank_portion_retries"]) == 1


def test_a_third_death_of_the_same_portion_fails_the_job() -> None:
    def always_die(_: Portion) -> Sequence[float]:
        raise ReplicaLost("killed")

    scorer = FakePortionScorer(always_die)

    with pytest.raises(ReplicaLost):
        dispatch(scorer)

    assert all(scorer.attempts.count(portion) <= 3 for portion in scorer.attempts)


def test_a_failure_of_the_model_is_not_tried_again() -> None:
    def fail(_: Portion) -> Sequence[float]:
        raise EngineFailure("poison")

    scorer = FakePortionScorer(fail)

    with pytest.raises(EngineFailure):
        dispatch(scorer)

    assert len(set(scorer.attempts)) == len(scorer.attempts)


def test_too_few_logits_are_an_engine_failure() -> None:
    with pytest.raises(EngineFailure):
        dispatch(FakePortionScorer(lambda portion: by_first_token(portion)[1:]))


def test_cancelling_the_job_cancels_every_portion() -> None:
    cancelled = []

    class Hanging(FakePortionScorer):
        async def score(self, portion: Portion, deadline: Instant) -> PortionScores:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(portion)
                raise
            return await super().score(portion, deadline)

    async def hang_up() -> None:
        dispatcher = Dispatcher(Hanging(by_first_token), Tokens(20), some_metrics())
        async with asyncio.timeout(0.01):
            await dispatcher.score(a_job(), TOKENIZED)

    with pytest.raises(TimeoutError):
        asyncio.run(hang_up())

    assert len(cancelled) > 5
