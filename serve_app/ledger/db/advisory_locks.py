"""Keys of PostgreSQL's advisory locks, the same in every version."""

from enum import IntEnum

from sqlalchemy import Connection, text


class AdvisoryLock(IntEnum):
    """What each lock protects, until the end of its transaction."""

    MIGRATION = 7_236_190_452_118
    EVENT_DELIVERY = 7_236_190_452_119
    TENANT_NAMES = 7_236_190_452_120


def lock(connection: Connection, key: AdvisoryLock) -> None:
    """Wait for the lock. A write transaction on SQLite already excludes all others."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})


def try_lock(connection: Connection, key: AdvisoryLock) -> bool:
    """Take the lock if it is free, and return whether it was. PostgreSQL only."""
    query = text("SELECT pg_try_advisory_xact_lock(:key)")
    return bool(connection.scalar(query, {"key": key}))
