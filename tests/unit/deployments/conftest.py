"""Delivery tests use a real outbox, in the ledger's databases."""

from tests.unit.ledger.conftest import acme, database_url, engine, kind, postgres

__all__ = ["acme", "database_url", "engine", "kind", "postgres"]
