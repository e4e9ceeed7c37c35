"""A gateway's knowledge of the models behind it.

The default model is ready if it has answered recently, or else answers a probe. Other models are
only probed until they have described themselves, because probes would keep them from scaling to
zero. After that, any answer makes them ready until no replica is left.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Protocol

from serve_app.domain.clock import Clock
from serve_app.domain.errors import RerankError
from serve_app.domain.model_card import ModelCard, Readiness, ReplicaInfo
from serve_app.domain.units import Instant, ModelId
from serve_app.ports import PortionScorer

PROBE_EVERY_S = 1.0
PROBE_TIMEOUT_S = 2.0
FRESH_S = 10.0
"""The default model is not probed for this time after an answer."""


class ProbedScorer(PortionScorer, Protocol):
    """Records the answers of its replicas."""

    @property
    def info(self) -> ReplicaInfo | None:
        """The latest description, if any."""

    @property
    def answered_at(self) -> Instant:
        """Time of the last answer; minus infinity if there was none, or no replica is left."""


class MeasuredScorer(Protocol):
    """Measures the speed of its replicas."""

    @property
    def replica_tokens_per_s(self) -> float | None:
        """``None`` before the first answer."""


class Catalogue:
    """The served models, default first, with their readiness."""

    def __init__(
        self,
        cards: tuple[ModelCard, ...],
        scorers: Mapping[ModelId, ProbedScorer],
        speeds: Mapping[ModelId, MeasuredScorer],
        ledger_answers: Callable[[], Awaitable[bool]],
        clock: Clock,
    ) -> None:
        self._cards = cards
        self._default = cards[0].id
        self._scorers = scorers
        self._speeds = speeds
        self._ledger_answers = ledger_answers
        self._clock = clock
        self._probed_at = Instant(float("-inf"))
        self._probe: asyncio.Task[Readiness] | None = None

    async def cards(self) -> tuple[ModelCard, ...]:
        ready = dict((await self.readiness()).models)
        return tuple(self._described(card, ready=ready[card.id]) for card in self._cards)

    def _described(self, card: ModelCard, *, ready: bool) -> ModelCard:
        card = replace(card, ready=ready, tokens_per_s=self._speeds[card.id].replica_tokens_per_s)
        info = self._scorers[card.id].info
        if info is None:
            return card
        return replace(
            card,
            device=info.device,
            precision=info.precision,
            description=info.description,
            activation=info.activation,
        )

    async def readiness(self) -> Readiness:
        """The ledger and the default model must answer."""
        due = self._clock.instant() - self._probed_at >= PROBE_EVERY_S
        if self._probe is None or (self._probe.done() and due):
            self._probed_at = self._clock.instant()
            self._probe = asyncio.create_task(self._probe_all())
        # The probe serves all concurrent callers.
        return await asyncio.shield(self._probe)

    async def _probe_all(self) -> Readiness:
        models = [card.id for card in self._cards]
        ledger, *answers = await asyncio.gather(
            self._ledger_answers(), *(self._probe_model(model) for model in models)
        )
        states = tuple(zip(models, answers, strict=True))
        return Readiness(ledger and states[0][1], ledger, states)

    async def _probe_model(self, model: ModelId) -> bool:
        scorer = self._scorers[model]
        fresh = self._clock.instant() - scorer.answered_at < FRESH_S
        if scorer.info is not None and (fresh or model != self._default):
            return fresh or scorer.answered_at > float("-inf")
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                await scorer.describe()
        except (RerankError, TimeoutError):
            return False
        return True
