"""Connections to the ledger's database: SQLite on one machine, PostgreSQL for several.

A write transaction sees every earlier one. Once a durable transaction has returned, it and every
earlier one survive a power loss.
"""

import random
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import SQLAlchemyError

from serve_app.domain.units import Seconds
from serve_app.ledger.db.failures import database_failures
from serve_app.ledger.db.pipelined import pipeline

__all__ = [
    "Connection",  # For modules that pass connections on and use no SQL.
    "open_reader",
    "open_snapshots",
    "open_writer",
    "opened",
    "parse_url",
    "probe",
    "reading",
    "transaction",
]

STEPS_BETWEEN_LOOKS = 100_000
"""SQLite VM steps between two timeout checks, which take a few milliseconds."""


def parse_url(database_url: str) -> URL:
    """Add the name of the driver.

    Raises: ValueError, also if processes cannot share the database.
    """
    try:
        url = make_url(database_url)
    except SQLAlchemyError as error:
        raise ValueError("the database URL is malformed") from error
    match url.get_backend_name():
        case "sqlite":
            if not url.database or ":memory:" in url.database:
                raise ValueError("the ledger needs a SQLite file, because several processes use it")
            return url.set(drivername="sqlite")
        case "postgresql" | "postgres":
            if find_spec("psycopg") is None:
                raise ValueError(
                    "PostgreSQL needs the extra 'postgres': pip install 'rerank-serve[postgres]'"
                )
            return url.set(drivername="postgresql+psycopg")
        case other:
            raise ValueError(f"the ledger supports sqlite and postgresql, not {other}")


def open_writer(
    database_url: str,
    timeout_s: Seconds,
    *,
    connections: int = 1,
    pre_ping: bool = True,
    durable: bool = True,
) -> Engine:
    """Create an engine for write transactions. The caller disposes of it.

    Args:
        timeout_s: Longest run time of a statement, and longest wait for a lock.
        pre_ping: Test connections first, so that a restart of PostgreSQL fails no transaction.
            Otherwise, `pipelined` is used.
        durable: Wait for the disk at COMMIT. Otherwise, a database crash can undo the newest
            transactions, until the next durable one.
    """
    url = parse_url(database_url)
    settings = {} if durable else {"synchronous_commit": "off"}
    pipelined = not pre_ping and url.get_backend_name() == "postgresql"
    engine = _open(
        url,
        timeout_s,
        connections,
        pool_pre_ping=pre_ping,
        pool_reset_on_return=None if pipelined else "rollback",
        connect_args=_connect_args(url, timeout_s, **settings, **_vanishing(timeout_s)),
    )
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _never_wait)
        event.listen(engine, "begin", lambda connection: _begin_immediate(connection, timeout_s))
        if not durable:
            event.listen(engine, "connect", _leave_the_disk_to_the_next)
    elif pipelined:
        # A lock wait and one statement can each take the whole timeout.
        pipeline(engine, transaction_s_max=Seconds(3 * timeout_s))
    return engine


def open_reader(database_url: str, timeout_s: Seconds, *, connections: int) -> Engine:
    """Create an engine for single SELECTs, which fail after ``timeout_s``."""
    url = parse_url(database_url)
    engine = _open(url, timeout_s, connections, isolation_level="AUTOCOMMIT")
    if url.get_backend_name() == "sqlite":
        event.listen(engine, "before_cursor_execute", partial(_give_up_after, timeout_s))
    return engine


def open_snapshots(database_url: str, timeout_s: Seconds, *, connections: int) -> Engine:
    """Create an engine for reports, each SELECT of which fails after ``timeout_s``.

    A transaction sees one snapshot, and neither waits for writers nor blocks them.
    """
    url = parse_url(database_url)
    engine = _snapshots(url, timeout_s, connections)
    if url.get_backend_name() == "sqlite":
        event.listen(engine, "before_cursor_execute", partial(_give_up_after, timeout_s))
    return engine


@contextmanager
def transaction(database_url: str, timeout_s: Seconds) -> Iterator[Connection]:
    """Run one write transaction on a new connection, for commands.

    Raises: LedgerUnavailable. Nothing was written, unless only the response to the COMMIT was lost.
    """
    with _in_one_transaction(open_writer(database_url, timeout_s)) as connection:
        yield connection


@contextmanager
def reading(database_url: str, timeout_s: Seconds) -> Iterator[Connection]:
    """Open a read-only snapshot. Raises: LedgerUnavailable, also if the caller tries to write."""
    engine = _snapshots(parse_url(database_url), timeout_s, connections=1)
    with _in_one_transaction(engine) as connection:
        yield connection


@contextmanager
def opened(engine: Engine) -> Iterator[Engine]:
    try:
        yield engine
    finally:
        engine.dispose()


EMPTY_LOG_MESSAGE = "SELECT pg_logical_emit_message(true, 'rerank-serve', '')"
"""Makes PostgreSQL flush its log at COMMIT, which a transaction without any record does not."""


def probe(connection: Connection) -> None:
    """Write to the database's log at COMMIT without changing data, which fails on a full disk."""
    on_sqlite = connection.dialect.name == "sqlite"
    connection.exec_driver_sql("PRAGMA user_version = 0" if on_sqlite else EMPTY_LOG_MESSAGE)


@contextmanager
def _in_one_transaction(engine: Engine) -> Iterator[Connection]:
    with opened(engine), database_failures(), engine.begin() as connection:
        yield connection


def _snapshots(url: URL, timeout_s: Seconds, connections: int) -> Engine:
    if url.get_backend_name() == "sqlite":
        engine = _open(url, timeout_s, connections)
        event.listen(engine, "begin", _begin_reading)
        return engine
    return _open(
        url,
        timeout_s,
        connections,
        isolation_level="REPEATABLE READ",
        execution_options={"postgresql_readonly": True},
    )


def _open(url: URL, timeout_s: Seconds, connections: int, **options: Any) -> Engine:
    engine = create_engine(
        url,
        pool_size=connections,
        max_overflow=0,
        pool_timeout=timeout_s,
        **{"pool_pre_ping": True, "connect_args": _connect_args(url, timeout_s)} | options,
    )
    if url.get_backend_name() == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
    return engine


def _connect_args(url: URL, timeout_s: Seconds, **settings: object) -> dict[str, Any]:
    if url.get_backend_name() == "sqlite":
        return {"timeout": timeout_s}  # SQLite's busy_timeout
    timeout_ms = max(1, round(timeout_s * 1_000))
    settings = {"statement_timeout": timeout_ms, "lock_timeout": timeout_ms} | settings
    return {
        "connect_timeout": max(2, round(timeout_s)),  # 2 is the minimum of libpq
        "options": " ".join(f"-c {name}={value}" for name, value in settings.items()),
        # Detects a vanished server in about timeout_s.
        "tcp_user_timeout": timeout_ms,
        **{f"keepalives_{name}": value for name, value in _keepalives(timeout_s).items()},
    }


def _keepalives(timeout_s: Seconds) -> dict[str, int]:
    return {"idle": max(1, round(timeout_s / 2)), "interval": 1, "count": 3}


def _vanishing(timeout_s: Seconds) -> dict[str, object]:
    """Return settings that end the transaction of a vanished writer, which would keep its locks."""
    return {
        # Longer than the lock timeout, so that a slow writer can still finish.
        "idle_in_transaction_session_timeout": max(1, round(2 * timeout_s * 1_000)),
        "tcp_user_timeout": max(1, round(timeout_s * 1_000)),
        **{f"tcp_keepalives_{name}": value for name, value in _keepalives(timeout_s).items()},
    }


def _prepare_sqlite(dbapi_connection: Any, _record: Any) -> None:
    # The driver would begin transactions too late, at the first INSERT.
    dbapi_connection.isolation_level = None
    cursor = dbapi_connection.cursor()
    # With NORMAL, a power loss could undo commits after their responses were sent.
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _give_up_after(timeout_s: Seconds, connection: Connection, *_: Any) -> None:
    """SQLite aborts a statement when the progress handler returns True."""
    give_up_at = time.monotonic() + timeout_s
    _driver(connection).set_progress_handler(
        lambda: time.monotonic() >= give_up_at, STEPS_BETWEEN_LOOKS
    )


def _never_wait(dbapi_connection: Any, _record: Any) -> None:
    dbapi_connection.execute("PRAGMA busy_timeout = 0")  # `_begin_immediate` waits instead.


def _begin_reading(connection: Connection) -> None:
    connection.exec_driver_sql("PRAGMA query_only = ON")
    connection.exec_driver_sql("BEGIN")  # Takes no lock. The first SELECT takes the snapshot.


def _leave_the_disk_to_the_next(dbapi_connection: Any, _record: Any) -> None:
    # All connections share one log, and the next commit at FULL syncs all of it.
    dbapi_connection.execute("PRAGMA synchronous = NORMAL")


def _begin_immediate(connection: Connection, timeout_s: Seconds) -> None:
    """Take the write lock immediately: a reader cannot upgrade while another process writes.

    SQLite's own wait retries after up to 100 ms: of two gateways at full load, one waited 1.6 s
    (p99). Retrying every millisecond is fair.
    """
    # The bare driver is several times faster than SQLAlchemy here.
    driver = _driver(connection)
    give_up_at = time.monotonic() + timeout_s
    while True:
        try:
            driver.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if not _is_busy(error) or time.monotonic() >= give_up_at:
                break
            time.sleep(random.uniform(0.0005, 0.0015))  # noqa: S311 - not a secret
        else:
            return
    connection.exec_driver_sql("BEGIN IMMEDIATE")  # Raises SQLAlchemy's error, or succeeds.


def _driver(connection: Connection) -> sqlite3.Connection:
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    return driver


def _is_busy(error: sqlite3.OperationalError) -> bool:
    # The other bits give the kind of SQLITE_BUSY.
    return error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
