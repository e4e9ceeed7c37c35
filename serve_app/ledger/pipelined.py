"""PostgreSQL's pipeline: statements whose answers nobody reads are sent with the next one.

A transaction of the writer is BEGIN, one SELECT, two to four writes, COMMIT, and each would wait
for the server. Pipelined, only two do: the SELECT, with the BEGIN before it, and the COMMIT, with
the writes before it. What an `UNREAD` statement fails with is raised by the next one that waits,
the COMMIT at the latest; PostgreSQL does nothing that comes between.

SQLite is in the same process: nothing to wait for.
"""

from contextlib import suppress
from typing import Any

from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, Engine, event

UNREAD = {"rerank_unread": True}
"""Execution options of a statement that answers neither rows nor how many it changed."""

_PIPELINE = "rerank_pipeline"


def pipeline(engine: Engine) -> None:
    """Each connection of this engine, from now on.

    Nothing but transactions by way of the engine may use them: no ping either, which would not wait
    for its answer. The pool must reset nothing on return.
    """
    event.listen(engine, "connect", _enter)
    event.listen(engine, "begin", _begin)
    event.listen(engine, "after_cursor_execute", _wait)
    event.listen(engine, "reset", _reset)
    event.listen(engine, "close", _leave)


def _enter(dbapi_connection: Any, record: Any) -> None:
    # In its own transaction mode, psycopg would wait for each BEGIN.
    dbapi_connection.autocommit = True
    block = dbapi_connection.pipeline()
    record.info[_PIPELINE] = (block, block.__enter__())


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN", execution_options=UNREAD)


def _wait(connection: Connection, *args: Any) -> None:
    context = args[-2]
    if "rerank_unread" not in context.execution_options:
        _, pipeline = connection.info[_PIPELINE]
        pipeline.sync()


def _reset(dbapi_connection: Any, _record: Any, _state: Any) -> None:
    # A COMMIT that failed ends no transaction here. The pool's own ROLLBACK would be one more wait.
    if dbapi_connection.info.transaction_status != TransactionStatus.IDLE:
        dbapi_connection.rollback()


def _leave(_dbapi_connection: Any, record: Any) -> None:
    block, _ = record.info.pop(_PIPELINE)
    with suppress(Exception):  # The connection may be lost already.
        block.__exit__(None, None, None)
