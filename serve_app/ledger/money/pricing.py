"""Prices per document, by model and service tier. Pure functions."""

from collections.abc import Mapping

from serve_app.domain.model import Prices, ServiceTier
from serve_app.domain.units import Credits, ModelId


class PriceList:
    """The prices of each model; implements `serve_app.ports.Pricing`."""

    def __init__(self, prices: Mapping[ModelId, Prices]) -> None:
        self._prices = dict(prices)

    def price(self, model: ModelId, documents: int, tier: ServiceTier) -> Credits:
        """Return the price. The pipeline rejects models without one earlier."""
        assert documents >= 0
        return Credits(self._prices[model].of(tier) * documents)
