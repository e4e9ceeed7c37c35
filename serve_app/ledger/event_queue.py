"""The outbox as its reader sees it: whose turn it is, what waits, what is confirmed.

Any number of gateways read it. One at a time has the turn, so that they do not tell the sink the
same thing; a turn ends with its process. Nobody waits for a turn, and a turn holds no row: the
money path never waits for a sink.
"""

import fcntl
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from serve_app.domain.errors import LedgerUnavailable
from serve_app.domain.units import Moment, Seconds
from serve_app.ledger import outbox
from serve_app.ledger.database import open_reader, open_writer, parse_url, reason
from serve_app.ledger.outbox import Event
from serve_app.private_files import private_file

ADVISORY_LOCK = 7_236_190_452_119
"""Any number will do, as long as every version of this package uses the same."""

TURN_S_MAX = Seconds(60.0)
"""PostgreSQL ends the turn of somebody who vanished after this; a turn is one call of the sink."""


class EventQueue:
    """Blocking; for a thread of its own. `close` it after use."""

    def __init__(self, database_url: str, timeout_s: Seconds) -> None:
        """``timeout_s``: how long one statement may take."""
        self._reader = open_reader(database_url, timeout_s, connections=1)
        # One connection for the turn, one to confirm meanwhile.
        self._writer = open_writer(database_url, timeout_s, connections=2)
        self._file = Path(f"{parse_url(database_url).database}-events")

    def close(self) -> None:
        """Let go of the database."""
        self._reader.dispose()
        self._writer.dispose()

    def oldest_at(self) -> Moment | None:
        """When the event happened that waits for longest. Raises: LedgerUnavailable."""
        with _told(), self._reader.connect() as connection:
            return outbox.oldest_at(connection)

    def waiting(self, count_max: int, without: Collection[str] = ()) -> list[Event]:
        """The oldest, but those whose ids are in ``without``. Raises: LedgerUnavailable."""
        with _told(), self._reader.connect() as connection:
            return outbox.waiting(connection, count_max, without)

    def confirm(self, ids: Collection[str]) -> None:
        """The sink has these events. Raises: LedgerUnavailable."""
        with _told(), self._writer.begin() as connection:
            outbox.confirm(connection, ids)

    @contextmanager
    def turn(self) -> Iterator[bool]:
        """Whether the turn is ours, for the length of the block.

        Raises:
            LedgerUnavailable: The database failed; or the turn was taken away, and the events of
                this block may have been sent twice.
        """
        taking = self._file_turn if self._writer.dialect.name == "sqlite" else self._database_turn
        with taking() as ours:
            yield ours

    @contextmanager
    def _file_turn(self) -> Iterator[bool]:
        # Not in the database: a transaction that is open during the call would keep all others out.
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
        with _told(), self._writer.begin() as connection:
            timeout_ms = round(TURN_S_MAX * 1_000)
            # Of a gateway that vanished the server itself would know only after hours.
            connection.exec_driver_sql(
                f"SET LOCAL idle_in_transaction_session_timeout = {timeout_ms}"
            )
            query = text("SELECT pg_try_advisory_xact_lock(:key)")
            yield bool(connection.scalar(query, {"key": ADVISORY_LOCK}))


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        raise LedgerUnavailable(reason(error)) from error
