"""The writer's connections stay with it between transactions: a pool costs a tenth of a commit."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, ExceptionContext, event


class KeptConnection:
    """One connection of an engine, opened when it is first needed. One thread at a time.

    One that failed is given up, whatever the reason; the next transaction opens another.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._connection: Connection | None = None

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """A transaction, as the engine's."""
        try:
            if self._connection is None:
                self._connection = self.engine.connect()
            with self._connection.begin():
                yield self._connection
        except BaseException:
            self.let_go()
            raise

    def let_go(self) -> None:
        """Give the connection back to its engine."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def share_fate(first: KeptConnection, second: KeptConnection) -> None:
    """When one is lost the other is given up: the server was restarted, most likely, and a dead
    connection would fail a transaction whenever it is used next."""
    for one, other in ((first, second), (second, first)):
        event.listen(one.engine, "handle_error", _give_up(other))


def _give_up(kept: KeptConnection) -> Callable[[ExceptionContext], None]:
    def give_up(failure: ExceptionContext) -> None:
        if failure.is_disconnect:
            kept.let_go()
            kept.engine.dispose()

    return give_up
