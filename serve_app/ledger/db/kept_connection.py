"""A connection that the writer keeps between transactions; a pool costs a tenth of a commit."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import InterfaceError, OperationalError


class KeptConnection:
    """One connection of an engine, opened on first use. Only one thread may use it at a time.

    After any failure, the next transaction opens a new one: a pipelined connection can be out of
    step with its results without showing it.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: Connection | None = None
        self._fellow: KeptConnection | None = None

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        try:
            if self._connection is None:
                self._connection = self._engine.connect()
            with self._connection.begin():
                yield self._connection
        except BaseException as error:
            if self._connection is not None:
                self._connection.invalidate()
            self._let_go()
            if self._fellow and isinstance(error, (OperationalError, InterfaceError)):
                self._fellow.close()
            raise

    def close(self) -> None:
        """Disconnect. The next transaction connects again."""
        self._let_go()
        self._engine.dispose()

    def share_fate(self, fellow: "KeptConnection") -> None:
        """Close both connections when the database fails on one of them.

        After a restart of the database, a transaction on the other connection would fail, too.
        """
        self._fellow, fellow._fellow = fellow, self

    def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
