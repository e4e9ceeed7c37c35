"""A service whose speeds are round numbers."""

import pytest

from serve_app.domain.units import Seconds
from serve_app.planning import sizing
from serve_app.planning.profiles import Basis, Database, Gateway, Scorer, Service

SCORER = Scorer("a test's", Basis.MEASURED, "a test", ((50, 50_000),), Seconds(0.01), Seconds(10))
GATEWAY = Gateway(Seconds(0.004), Seconds(0.0001), Seconds(0.002), Seconds(0.006), "a test")
DATABASE = Database("a test's", Seconds(0.001), Seconds(0.0005), "a test")


@pytest.fixture
def service() -> Service:
    """Each scorer scores 1,000 documents of 50 tokens per second."""
    return Service(SCORER, GATEWAY, DATABASE)


@pytest.fixture(autouse=True)
def _short_simulations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizing, "REQUESTS", 800)
    monkeypatch.setattr(sizing, "SECONDS_MIN", 8.0)
