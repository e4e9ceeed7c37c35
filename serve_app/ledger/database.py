"""Connections to the ledger's database: SQLite or PostgreSQL, told apart here and in `schema`.

SQLite serves the processes of one machine; PostgreSQL serves several. What must hold on both:
a write transaction sees every earlier one, and once it has returned it survives a power loss,
and so does every one before it. The only exceptions are those of a `forgettable`
writer, until the next transaction of another.
"""

import random
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import SQLAlchemyError

from serve_app.domain.errors import LedgerUnavailable
from serve_app.domain.units import Seconds
from serve_app.ledger.pipelined import pipeline

__all__ = [
    "Connection",  # Its name, for those who hold one and know no SQL.
    "open_reader",
    "open_writer",
    "opened",
    "parse_url",
    "probe",
    "reading",
    "reason",
    "transaction",
]

STEPS_BETWEEN_LOOKS = 100_000
"""Of SQLite's virtual machine, some milliseconds, between two looks at the time."""


def parse_url(database_url: str) -> URL:
    """The URL with its driver named.

    Raises:
        ValueError: The URL is malformed, or names a database that processes cannot share.
    """
    try:
        url = make_url(database_url)
    except SQLAlchemyError as error:
        raise ValueError("the database URL is malformed") from error
    match url.get_backend_name():
        case "sqlite":
            if not url.database or ":memory:" in url.database:
                raise ValueError("the ledger needs a SQLite file: processes share it")
            return url.set(drivername="sqlite")
        case "postgresql" | "postgres":
            return url.set(drivername="postgresql+psycopg")
        case other:
            raise ValueError(f"the ledger runs on sqlite or postgresql, not on {other}")


def open_writer(
    database_url: str,
    timeout_s: Seconds,
    *,
    connections: int = 1,
    pre_ping: bool = True,
    forgettable: bool = False,
) -> Engine:
    """An engine whose every transaction may write. Dispose of it when done.

    Args:
        timeout_s: How long one statement, or the wait for another's lock, may take.
        connections: Transactions at once. One is all that SQLite runs.
        pre_ping: Ask before each transaction whether the connection still lives, so that a restart
            of PostgreSQL costs a new connection, not a failed transaction. Without it transactions
            are `pipelined`.
        forgettable: A crash of the database may undo its transactions, newest first: they do not
            wait for the disk. A later transaction of a writer that does saves them too.
    """
    url = parse_url(database_url)
    settings = {"synchronous_commit": "off"} if forgettable else {}
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
        if forgettable:
            event.listen(engine, "connect", _leave_the_disk_to_the_next)
    elif pipelined:
        # One wait for a lock and one statement may take all their time, and what they have done
        # must still end.
        pipeline(engine, transaction_s_max=Seconds(3 * timeout_s))
    return engine


def open_reader(database_url: str, timeout_s: Seconds, *, connections: int) -> Engine:
    """An engine for single SELECTs, each seeing what was committed when it began.

    One that takes longer than ``timeout_s`` fails.
    """
    url = parse_url(database_url)
    engine = _open(url, timeout_s, connections, isolation_level="AUTOCOMMIT")
    if url.get_backend_name() == "sqlite":
        event.listen(engine, "before_cursor_execute", partial(_give_up_after, timeout_s))
    return engine


@contextmanager
def transaction(database_url: str, timeout_s: Seconds) -> Iterator[Connection]:
    """One write transaction on a connection of its own, for commands; committed at the end.

    Raises:
        LedgerUnavailable: The database failed. Nothing was written, unless the failure was the
            loss of its last answer.
    """
    with _in_one_transaction(open_writer(database_url, timeout_s)) as connection:
        yield connection


@contextmanager
def reading(database_url: str, timeout_s: Seconds) -> Iterator[Connection]:
    """One snapshot of the whole database, for reports: waits for no writer and holds up none.

    Raises:
        LedgerUnavailable: The database failed, or was asked to write.
    """
    with _in_one_transaction(_open_snapshots(parse_url(database_url), timeout_s)) as connection:
        yield connection


@contextmanager
def opened(engine: Engine) -> Iterator[Engine]:
    """The engine, disposed of at the end."""
    try:
        yield engine
    finally:
        engine.dispose()


EMPTY_LOG_MESSAGE = "SELECT pg_logical_emit_message(true, 'rerank-serve', '')"
"""Makes PostgreSQL flush its log at COMMIT, which a transaction without any record does not."""


def probe(connection: Connection) -> None:
    """Change nothing, but make COMMIT write to the database's log: that fails on a full disk."""
    on_sqlite = connection.dialect.name == "sqlite"
    connection.exec_driver_sql("PRAGMA user_version = 0" if on_sqlite else EMPTY_LOG_MESSAGE)


def reason(error: BaseException) -> str:
    """What a log may say of a database error: neither the statement nor its parameters."""
    origin = getattr(error, "orig", None) or error
    return f"{type(origin).__name__}: {origin}".strip()


@contextmanager
def _in_one_transaction(engine: Engine) -> Iterator[Connection]:
    with opened(engine):
        try:
            with engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise LedgerUnavailable(reason(error)) from error


def _open_snapshots(url: URL, timeout_s: Seconds) -> Engine:
    if url.get_backend_name() == "sqlite":
        engine = _open(url, timeout_s, 1)
        event.listen(engine, "begin", _begin_reading)
        return engine
    return _open(
        url,
        timeout_s,
        1,
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
    """``settings``: of the session, for PostgreSQL."""
    if url.get_backend_name() == "sqlite":
        return {"timeout": timeout_s}  # SQLite's busy_timeout
    timeout_ms = max(1, round(timeout_s * 1_000))
    settings = {"statement_timeout": timeout_ms, "lock_timeout": timeout_ms} | settings
    return {
        "connect_timeout": max(2, round(timeout_s)),  # 2 is the least that libpq takes
        "options": " ".join(f"-c {name}={value}" for name, value in settings.items()),
        # A server that vanished without a word is noticed in about timeout_s too.
        "tcp_user_timeout": timeout_ms,
        **{f"keepalives_{name}": value for name, value in _keepalives(timeout_s).items()},
    }


def _keepalives(timeout_s: Seconds) -> dict[str, int]:
    """Libpq's and the server's, but for what each puts before the names."""
    return {"idle": max(1, round(timeout_s / 2)), "interval": 1, "count": 3}


def _vanishing(timeout_s: Seconds) -> dict[str, object]:
    """Settings by which PostgreSQL gives up a writer that went away in the midst of a transaction
    without a word: its host lost power, say. Until then it holds the locks of its accounts."""
    return {
        # Longer than whoever waits for its locks, so that a writer that is merely slow may end.
        "idle_in_transaction_session_timeout": max(1, round(2 * timeout_s * 1_000)),
        "tcp_user_timeout": max(1, round(timeout_s * 1_000)),
        **{f"tcp_keepalives_{name}": value for name, value in _keepalives(timeout_s).items()},
    }


def _prepare_sqlite(dbapi_connection: Any, _record: Any) -> None:
    # The driver's own transactions begin too late (at the first INSERT); ours begin explicitly.
    dbapi_connection.isolation_level = None
    cursor = dbapi_connection.cursor()
    # NORMAL would forget the last commits at a power loss, after their answers went out.
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _give_up_after(timeout_s: Seconds, connection: Connection, *_: Any) -> None:
    """SQLite has no limit of its own; it asks the handler as it goes, and stops on True."""
    give_up_at = time.monotonic() + timeout_s
    _driver(connection).set_progress_handler(
        lambda: time.monotonic() >= give_up_at, STEPS_BETWEEN_LOOKS
    )


def _never_wait(dbapi_connection: Any, _record: Any) -> None:
    dbapi_connection.execute("PRAGMA busy_timeout = 0")  # `_begin_immediate` does.


def _begin_reading(connection: Connection) -> None:
    connection.exec_driver_sql("PRAGMA query_only = ON")
    connection.exec_driver_sql("BEGIN")  # Takes no lock; the first SELECT takes the snapshot.


def _leave_the_disk_to_the_next(dbapi_connection: Any, _record: Any) -> None:
    # All connections write one log; the next commit at FULL brings all of it to the disk.
    dbapi_connection.execute("PRAGMA synchronous = NORMAL")


def _begin_immediate(connection: Connection, timeout_s: Seconds) -> None:
    """Take the write lock at once: a reader cannot become a writer while another one writes.

    SQLite's own wait asks again after up to 100 ms, and so starves beside a busy process: with two
    gateways at full load, one waited 1.6 s (p99). Asking every millisecond gives each its turn.
    """
    # Without SQLAlchemy, which takes several times as long for it.
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
    connection.exec_driver_sql("BEGIN IMMEDIATE")  # SQLAlchemy's own error, or our turn at last.


def _driver(connection: Connection) -> sqlite3.Connection:
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    return driver


def _is_busy(error: sqlite3.OperationalError) -> bool:
    """Whether another connection holds the lock, as opposed to a full disk or a lost file."""
    # The other bits say which kind of busy.
    return error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
