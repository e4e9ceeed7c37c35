"""What a gateway knows of the models behind it, learnt by asking their replicas.

A probe is a real call on a real replica. Probes are shared: however often readiness is asked, each
model is asked at most once a second.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from serve_app.domain.clock import Clock
from serve_app.domain.errors import RerankError
from serve_app.domain.model import ModelCard, Readiness
from serve_app.domain.units import Instant, ModelId
from serve_app.ports import PortionScorer

PROBE_EVERY_S = 1.0
PROBE_TIMEOUT_S = 2.0


class Catalogue:
    """The served models, default first, and whether each answers."""

    def __init__(
        self,
        cards: tuple[ModelCard, ...],
        scorers: Mapping[ModelId, PortionScorer],
        ledger_answers: Callable[[], Awaitable[bool]],
        clock: Clock,
    ) -> None:
        self._cards = {card.id: card for card in cards}
        self._scorers = scorers
        self._ledger_answers = ledger_answers
        self._clock = clock
        self._probed_at = Instant(float("-inf"))
        self._probe: asyncio.Task[Readiness] | None = None

    async def cards(self) -> tuple[ModelCard, ...]:
        """Every model, as its replicas describe themselves now."""
        await self.readiness()
        return tuple(self._cards.values())

    async def readiness(self) -> Readiness:
        """Ready when the ledger answers and a replica of the default model does."""
        due = self._clock.instant() - self._probed_at >= PROBE_EVERY_S
        if self._probe is None or (self._probe.done() and due):
            self._probed_at = self._clock.instant()
            self._probe = asyncio.create_task(self._probe_all())
        # Shielded: the probe is shared with whoever else is asking.
        return await asyncio.shield(self._probe)

    async def _probe_all(self) -> Readiness:
        ledger, *answers = await asyncio.gather(
            self._ledger_answers(), *(self._probe_model(model) for model in self._cards)
        )
        models = tuple(zip(self._cards, answers, strict=True))
        return Readiness(ledger and models[0][1], ledger, models)

    async def _probe_model(self, model: ModelId) -> bool:
        card = self._cards[model]
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                info = await self._scorers[model].describe()
        except (RerankError, TimeoutError):
            self._cards[model] = replace(card, ready=False)
            return False
        self._cards[model] = replace(
            card,
            ready=True,
            device=info.device,
            precision=info.precision,
            description=info.description,
        )
        return True
