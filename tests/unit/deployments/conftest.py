"""Delivery tests use a real outbox, in the ledger's databases."""

from tests.unit.ledger.conftest import acme, engine

__all__ = ["acme", "engine"]
