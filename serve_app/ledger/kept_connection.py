"""The writer's connections stay with it between transactions: a pool costs a tenth of a commit."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import InterfaceError, OperationalError


class KeptConnection:
    """One connection of an engine, opened when it is first needed. One thread at a time.

    After a failure, whatever the reason, it is closed and the next transaction opens another: one
    on which statements are pipelined may be out of step with its answers, and looks well.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: Connection | None = None
        self._fellow: KeptConnection | None = None

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """A transaction, as the engine's."""
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
        """Leave the database; the next transaction comes back to it."""
        self._let_go()
        self._engine.dispose()

    def share_fate(self, fellow: "KeptConnection") -> None:
        """When the database fails one, the other leaves: it may have been restarted, and a dead
        connection would fail a transaction whenever it is used next."""
        self._fellow, fellow._fellow = fellow, self

    def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
