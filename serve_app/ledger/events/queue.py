"""The consumer side of the outbox.

Gateways take turns, so that the sink does not get an event from several of them. A turn is a lock
for which no gateway waits and which locks no row, so charges never wait for a sink.
"""

import fcntl
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from serve_app.domain.units import Moment, Seconds
from serve_app.ledger.db.advisory_locks import AdvisoryLock, try_lock
from serve_app.ledger.db.engines import open_reader, open_writer, parse_url
from serve_app.ledger.db.failures import database_failures
from serve_app.ledger.events import outbox
from serve_app.ledger.events.outbox import Event
from serve_app.private_files import private_file

TURN_S_MAX = Seconds(60.0)
"""PostgreSQL ends the turn of a vanished gateway after this time instead of hours."""


class EventQueue:
    """Blocking access to the outbox, for one thread. Its methods raise LedgerUnavailable."""

    def __init__(self, database_url: str, timeout_s: Seconds) -> None:
        self._reader = open_reader(database_url, timeout_s, connections=1)
        # One connection holds the turn while the other one confirms.
        self._writer = open_writer(database_url, timeout_s, connections=2)
        self._file = Path(f"{parse_url(database_url).database}-events")

    def close(self) -> None:
        self._reader.dispose()
        self._writer.dispose()

    def oldest_at(self) -> Moment | None:
        with database_failures(), self._reader.connect() as connection:
            return outbox.oldest_at(connection)

    def waiting(self, count_max: int, without: Collection[str] = ()) -> list[Event]:
        with database_failures(), self._reader.connect() as connection:
            return outbox.waiting(connection, count_max, without)

    def confirm(self, ids: Collection[str]) -> None:
        with database_failures(), self._writer.begin() as connection:
            outbox.confirm(connection, ids)

    @contextmanager
    def turn(self) -> Iterator[bool]:
        """Try to take the turn for the block; yield whether that succeeded.

        Raises: LedgerUnavailable, after which another gateway may also have sent these events.
        """
        taking = self._file_turn if self._writer.dialect.name == "sqlite" else self._database_turn
        with taking() as ours:
            yield ours

    @contextmanager
    def _file_turn(self) -> Iterator[bool]:
        # A file lock, because an open transaction would block all other writers of SQLite.
        private_file(self._file)
        with self._file.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True

    @contextmanager
    def _database_turn(self) -> Iterator[bool]:
        with database_failures(), self._writer.begin() as connection:
            timeout_ms = round(TURN_S_MAX * 1_000)
            connection.exec_driver_sql(
                f"SET LOCAL idle_in_transaction_session_timeout = {timeout_ms}"
            )
            yield try_lock(connection, AdvisoryLock.EVENT_DELIVERY)
