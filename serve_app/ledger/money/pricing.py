"""Prices of requests, by model and service tier."""

from collections.abc import Mapping

from serve_app.domain.model import ServiceTier
from serve_app.domain.model_card import Tariff
from serve_app.domain.units import Credits, ModelId
from serve_app.ports import Usage

TOKENS_PER_PRICE = 1_000_000


class PriceList:
    """Implements `serve_app.ports.Pricing`."""

    def __init__(self, tariffs: Mapping[ModelId, Tariff]) -> None:
        self._tariffs = dict(tariffs)

    def price(self, model: ModelId, usage: Usage, tier: ServiceTier) -> Credits:
        """The pipeline rejects models without a price earlier."""
        assert usage.documents >= 0
        assert usage.tokens >= 0
        tariff = self._tariffs[model]
        of_documents = usage.documents * tariff.per_document.of(tier)
        of_tokens = -(-usage.tokens * tariff.per_million_tokens.of(tier) // TOKENS_PER_PRICE)
        return Credits(of_documents + of_tokens)
