"""Delivery reads a real outbox: the ledger's own databases."""

from tests.unit.ledger.conftest import acme, database_url, engine, kind, postgres

__all__ = ["acme", "database_url", "engine", "kind", "postgres"]
