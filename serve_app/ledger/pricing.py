"""What work costs: a price per document, model and service tier. Pure."""

from collections.abc import Mapping

from serve_app.domain.model import ServiceTier
from serve_app.domain.units import Credits, ModelId


class PriceList:
    """Micro-dollars per document, by model; implements `serve_app.ports.Pricing`."""

    def __init__(self, prices: Mapping[ModelId, int], flex_prices: Mapping[ModelId, int]) -> None:
        """``flex_prices`` are those of the flex tier; every other tier has the same."""
        assert all(price >= 0 for price in [*prices.values(), *flex_prices.values()])
        assert prices.keys() == flex_prices.keys()
        self._prices = dict(prices)
        self._flex_prices = dict(flex_prices)

    def price(self, model: ModelId, documents: int, tier: ServiceTier) -> Credits:
        """Every served model has a price: the pipeline refuses any other before it asks."""
        assert documents >= 0
        prices = self._flex_prices if tier is ServiceTier.FLEX else self._prices
        return Credits(prices[model] * documents)
