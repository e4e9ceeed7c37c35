"""PostgreSQL's pipeline: statements whose answers nobody reads are sent with the next one.

A transaction of the writer is BEGIN, one SELECT, two to four writes, COMMIT, and each would wait
for the server. Pipelined, only two do: the SELECT, with the BEGIN before it, and the COMMIT, with
the writes before it. What an `UNREAD` statement fails with is raised by one that comes after it,
the COMMIT at the latest; PostgreSQL does nothing that comes between.

SQLite is in the same process: nothing to wait for.
"""

from contextlib import suppress
from functools import partial
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, Engine, event

from serve_app.domain.units import Seconds

HAS_TRANSACTION_TIMEOUT = 170_000
"""Version of PostgreSQL."""

_UNREAD = "rerank_unread"
UNREAD = {_UNREAD: True}
"""Execution options of a statement that answers neither rows nor how many it changed."""

_PIPELINE = "rerank_pipeline"


def pipeline(engine: Engine, transaction_s_max: Seconds) -> None:
    """Each connection of this engine, from now on.

    Nothing but transactions by way of the engine may use them: no ping either, which would not wait
    for its answer. The pool must reset nothing on return. PostgreSQL gives a transaction up that
    takes longer than ``transaction_s_max``, from its version 17 on: before, nothing ends that of a
    process which is frozen after a write that it does not wait for.
    """
    event.listen(engine, "connect", partial(_enter, transaction_ms_max=1_000 * transaction_s_max))
    event.listen(engine, "begin", _begin)
    event.listen(engine, "after_cursor_execute", _wait)
    event.listen(engine, "rollback", _drain)
    event.listen(engine, "reset", _reset)
    event.listen(engine, "close", _leave)


def _enter(dbapi_connection: Any, record: Any, *, transaction_ms_max: float) -> None:
    # In its own transaction mode, psycopg would wait for each BEGIN.
    dbapi_connection.autocommit = True
    if dbapi_connection.info.server_version >= HAS_TRANSACTION_TIMEOUT:
        dbapi_connection.execute(f"SET transaction_timeout = {round(transaction_ms_max)}")
    block = dbapi_connection.pipeline()
    record.info[_PIPELINE] = (block, block.__enter__())


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN", execution_options=UNREAD)


def _wait(connection: Connection, *args: Any) -> None:
    context = args[-2]
    if _UNREAD not in context.execution_options:
        _sync(connection.info)


def _drain(connection: Connection) -> None:
    # Whatever was sent behind a failure is answered "pipeline aborted", which would take the place
    # of the failure where ROLLBACK is the first to hear it.
    if not connection.invalidated:
        with suppress(psycopg.Error):
            _sync(connection.info)


def _reset(dbapi_connection: Any, record: Any, _state: Any) -> None:
    # A COMMIT that failed ends no transaction here. The pool's own ROLLBACK would be one more wait.
    if dbapi_connection.info.transaction_status != TransactionStatus.IDLE:
        with suppress(psycopg.Error):
            _sync(record.info)
        dbapi_connection.rollback()


def _sync(info: Any) -> None:
    _, entered = info[_PIPELINE]
    entered.sync()


def _leave(dbapi_connection: Any, record: Any) -> None:
    dbapi_connection.close()  # First, or leaving would wait for a server that may be gone.
    block, _ = record.info.pop(_PIPELINE)
    with suppress(psycopg.Error):
        block.__exit__(None, None, None)
