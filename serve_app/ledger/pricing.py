"""What work costs: a price per document and model. Pure."""

from collections.abc import Mapping

from serve_app.domain.units import Credits, ModelId


class PriceList:
    """Micro-dollars per document, by model; implements `serve_app.ports.Pricing`."""

    def __init__(self, prices: Mapping[ModelId, int]) -> None:
        assert all(price >= 0 for price in prices.values())
        self._prices = dict(prices)

    def price(self, model: ModelId, documents: int) -> Credits:
        """Every served model has a price: the pipeline refuses any other before it asks."""
        assert documents >= 0
        return Credits(self._prices[model] * documents)
