"""PostgreSQL pipeline mode: a statement whose result is not needed is sent with the next one.

So a transaction waits for the server only twice, at its SELECT and its COMMIT. The error of an
`UNREAD` statement is raised by a later one, at the latest by the COMMIT. PostgreSQL skips all
statements in between.
"""

from contextlib import suppress
from functools import partial
from typing import Any

from sqlalchemy import Connection, Engine, ExceptionContext, event

from serve_app.domain.units import Seconds

with suppress(ModuleNotFoundError):  # Without the extra `postgres`, the database is SQLite.
    import psycopg
    from psycopg.pq import TransactionStatus

HAS_TRANSACTION_TIMEOUT = 170_000

_UNREAD = "rerank_unread"
UNREAD = {_UNREAD: True}
"""Execution options of a statement that returns neither rows nor a row count."""

_PIPELINE = "rerank_pipeline"


def pipeline(engine: Engine, transaction_s_max: Seconds) -> None:
    """Put every new connection of this engine into pipeline mode.

    A ping would not wait for its result, and the pool must not reset a connection on return.

    Since version 17, PostgreSQL ends a transaction after ``transaction_s_max``. Earlier versions
    never end that of a process that freezes after an `UNREAD` write.
    """
    event.listen(engine, "connect", partial(_enter, transaction_ms_max=1_000 * transaction_s_max))
    event.listen(engine, "begin", _begin)
    event.listen(engine, "after_cursor_execute", _wait)
    event.listen(engine, "handle_error", _distrust)
    event.listen(engine, "rollback", _drain)
    event.listen(engine, "reset", _reset)
    event.listen(engine, "close", _leave)


def _enter(dbapi_connection: Any, record: Any, *, transaction_ms_max: float) -> None:
    # Without autocommit, psycopg would wait for each BEGIN.
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


def _distrust(context: ExceptionContext) -> None:
    # After a statement that could not be sent, the connection is out of step with its results.
    # SQLAlchemy replaces a connection whose error is a disconnect.
    context.is_disconnect = True


def _drain(connection: Connection) -> None:
    # If ROLLBACK waited first, its error "pipeline aborted" would replace the real one.
    if not connection.invalidated:
        with suppress(psycopg.Error):
            _sync(connection.info)


def _reset(dbapi_connection: Any, record: Any, _state: Any) -> None:
    # A failed COMMIT leaves the transaction open. The pool's own ROLLBACK would wait for the server
    # on every return.
    if dbapi_connection.info.transaction_status != TransactionStatus.IDLE:
        with suppress(psycopg.Error):
            _sync(record.info)
        dbapi_connection.rollback()


def _sync(info: Any) -> None:
    _, entered = info[_PIPELINE]
    entered.sync()


def _leave(dbapi_connection: Any, record: Any) -> None:
    dbapi_connection.close()  # First: leaving the pipeline would wait for the server.
    block, _ = record.info.pop(_PIPELINE)
    with suppress(psycopg.Error):
        block.__exit__(None, None, None)
