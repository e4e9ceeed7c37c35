"""Database access for reports and account changes, off the event loop.

Separate pools keep a long report from delaying key lookups, charges, and the revocation of a key.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from sqlalchemy import Connection

from serve_app.domain.errors import LedgerUnavailable
from serve_app.domain.units import Seconds
from serve_app.ledger.db.bounded_threads import BoundedThreads
from serve_app.ledger.db.engines import open_snapshots, open_writer
from serve_app.ledger.db.failures import database_failures
from serve_app.telemetry.logs import get_logger

logger = get_logger(__name__)

T = TypeVar("T")

THREADS = 2
"""For reports, and as many for changes."""

CALLS_MAX = 64
"""Most reports that wait or run, and most changes."""


class BackOffice:
    """Implements `serve_app.http.service.Office`."""

    def __init__(self, database_url: str, timeout_s: Seconds) -> None:
        """``timeout_s`` limits the wait for a thread and the run time of a statement."""
        self._readers = open_snapshots(database_url, timeout_s, connections=THREADS)
        self._writers = open_writer(database_url, timeout_s, connections=THREADS)
        self._reports, self._changes = (
            BoundedThreads(what, threads=THREADS, calls_max=CALLS_MAX, timeout_s=timeout_s)
            for what in ("reports", "changes")
        )

    def close(self) -> None:
        """Finish running calls, cancel waiting ones and disconnect. Blocks."""
        self._reports.close()
        self._changes.close()
        self._readers.dispose()
        self._writers.dispose()

    async def read(self, query: Callable[[Connection], T]) -> T:
        return await self._reports.call(lambda: self._read(query))

    async def write(self, change: Callable[[Connection], T]) -> T:
        return await self._changes.call(lambda: self._write(change))

    def _read(self, query: Callable[[Connection], T]) -> T:
        with _logged_failures(), self._readers.connect() as connection:
            return query(connection)

    def _write(self, change: Callable[[Connection], T]) -> T:
        with _logged_failures(), self._writers.begin() as connection:
            return change(connection)


@contextmanager
def _logged_failures() -> Iterator[None]:
    try:
        with database_failures():
            yield
    except LedgerUnavailable as error:
        logger.warning("ledger_back_office_failed", extra={"reason": error.reason})
        raise
