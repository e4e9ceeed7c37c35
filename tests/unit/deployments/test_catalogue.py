"""Readiness matches the clients' experience and costs little."""

import asyncio

from serve_app.deployments.catalogue import FRESH_S, PROBE_EVERY_S, Catalogue
from serve_app.domain.errors import NoReplica
from serve_app.domain.model_card import ModelCard, Prices, Readiness, ReplicaInfo, Tariff
from serve_app.domain.units import Instant, ModelId
from tests.support.fakes import FakeClock, FakePortionScorer

FIRST, SECOND = ModelId("first"), ModelId("second")


class ProbedScorer(FakePortionScorer):
    def __init__(self) -> None:
        super().__init__(lambda _: ())
        self.answered_at = Instant(float("-inf"))
        self.replica_tokens_per_s: float | None = None
        self.info: ReplicaInfo | None = None
        self.up = True
        self.asked = 0

    async def describe(self) -> ReplicaInfo:
        self.asked += 1
        if not self.up:
            raise NoReplica("down")
        self.info = ReplicaInfo("replica", "cuda", "float16", "a model", "tanh")
        return self.info


def card(model: ModelId) -> ModelCard:
    tariff = Tariff(Prices(8, flex=4, priority=16))
    return ModelCard(
        model, "hub/id", None, "", "auto", None, tariff, 512, ready=False, activation=None
    )


class Scene:
    """A catalogue of two models with its dependencies."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.ledger = True
        self.scorers = {FIRST: ProbedScorer(), SECOND: ProbedScorer()}
        self.catalogue = Catalogue(
            (card(FIRST), card(SECOND)),
            self.scorers,
            self.scorers,
            self._ledger_answers,
            self.clock,
        )

    async def _ledger_answers(self) -> bool:
        return self.ledger

    async def later(self, seconds: float = PROBE_EVERY_S) -> Readiness:
        self.clock.advance(seconds)
        return await self.catalogue.readiness()


def test_it_is_ready_when_the_ledger_and_the_default_model_answer() -> None:
    async def test() -> None:
        scene = Scene()
        assert (await scene.later()).ready

        scene.ledger = False
        assert not (await scene.later()).ready

        scene.ledger, scene.scorers[FIRST].up = True, False
        assert not (await scene.later()).ready

        scene.scorers[FIRST].up = True
        assert (await scene.later()).ready

    asyncio.run(test())


def test_the_failure_of_another_model_does_not_make_the_gateway_unready() -> None:
    async def test() -> None:
        scene = Scene()
        scene.scorers[SECOND].up = False

        readiness = await scene.later()

        assert readiness.ready
        assert readiness.models == ((FIRST, True), (SECOND, False))

    asyncio.run(test())


def test_a_model_that_answers_clients_is_not_probed() -> None:
    async def test() -> None:
        scene = Scene()
        await scene.later()
        first = scene.scorers[FIRST]
        first.answered_at, asked = scene.clock.instant(), first.asked
        first.up = False  # Too busy to answer a probe in time.

        assert (await scene.later()).ready
        assert first.asked == asked
        assert not (await scene.later(FRESH_S)).ready

    asyncio.run(test())


def test_other_models_are_probed_once_so_that_they_can_scale_to_zero() -> None:
    async def test() -> None:
        scene = Scene()
        for _ in range(5):
            await scene.later()

        assert scene.scorers[SECOND].asked == 1
        assert scene.scorers[FIRST].asked == 5

    asyncio.run(test())


def test_probes_are_shared_and_run_at_most_once_a_second() -> None:
    async def test() -> None:
        scene = Scene()

        await asyncio.gather(*(scene.catalogue.readiness() for _ in range(20)))
        await scene.catalogue.cards()

        assert scene.scorers[FIRST].asked == 1

    asyncio.run(test())


def test_model_cards_contain_what_the_replicas_report() -> None:
    async def test() -> None:
        scene = Scene()
        scene.scorers[FIRST].replica_tokens_per_s = 900.0
        first, second = await scene.catalogue.cards()

        assert (first.precision, first.device) == ("float16", "cuda")
        assert (first.description, first.activation) == ("a model", "tanh")
        assert (first.tokens_per_s, second.tokens_per_s) == (900.0, None)
        assert first.ready

    asyncio.run(test())
