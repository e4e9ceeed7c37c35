"""Database access for reports and account changes, off the event loop.

Its own connections and threads keep a report over a year from delaying a key lookup or a charge.
They are few, so that concurrent reports wait or are rejected instead of filling the gateway.
Separate pools keep reports from delaying changes such as the revocation of a key.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from serve_app.domain.errors import LedgerUnavailable
from serve_app.domain.units import Seconds
from serve_app.ledger.db.engines import open_reader, open_writer, reason
from serve_app.telemetry.logs import get_logger

logger = get_logger(__name__)

T = TypeVar("T")

THREADS = 2
"""Threads for reports, and the same number for changes."""

CALLS_MAX = 64
"""Most reports that wait or run, and most changes."""


class BackOffice:
    """Implements `serve_app.http.service.Office`. Call `close` after use; it blocks."""

    def __init__(self, database_url: str, timeout_s: Seconds) -> None:
        """``timeout_s`` limits the wait for a thread and the run time of a statement."""
        self._readers = open_reader(database_url, timeout_s, connections=THREADS)
        self._writers = open_writer(database_url, timeout_s, connections=THREADS)
        self._reports = _Desk("reports", timeout_s)
        self._changes = _Desk("changes", timeout_s)

    def close(self) -> None:
        """Finish running calls, cancel waiting ones and disconnect."""
        self._reports.close()
        self._changes.close()
        self._readers.dispose()
        self._writers.dispose()

    async def read(self, query: Callable[[Connection], T]) -> T:
        """See `serve_app.http.service.Office.read`."""
        return await self._reports.call(lambda: self._read(query))

    async def write(self, change: Callable[[Connection], T]) -> T:
        """See `serve_app.http.service.Office.write`."""
        return await self._changes.call(lambda: self._write(change))

    def _read(self, query: Callable[[Connection], T]) -> T:
        with self._readers.connect() as connection:
            return query(connection)

    def _write(self, change: Callable[[Connection], T]) -> T:
        with self._writers.begin() as connection:
            return change(connection)


class _Desk:
    """A thread pool for one kind of call, with a limit on waiting calls."""

    def __init__(self, what: str, timeout_s: Seconds) -> None:
        self._what = what
        self._timeout_s = timeout_s
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix=f"back-office-{what}")
        self._calls = 0

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)

    async def call(self, work: Callable[[], T]) -> T:
        if self._calls >= CALLS_MAX:
            raise LedgerUnavailable(f"too many {self._what} are waiting")
        self._calls += 1
        future = self._threads.submit(work)
        outcome = asyncio.wrap_future(future)
        try:
            done, _ = await asyncio.wait({outcome}, timeout=self._timeout_s)
            if not done and future.cancel():
                raise LedgerUnavailable(f"earlier {self._what} take too long")
            return await outcome  # It has begun: only the database determines its outcome.
        except SQLAlchemyError as error:
            logger.warning("ledger_back_office_failed", extra={"reason": reason(error)})
            raise LedgerUnavailable(reason(error)) from error
        finally:
            self._calls -= 1
            # Retrieve the exception of a call that was not cancelled, so that asyncio does not log
            # it.
            if not outcome.cancel() and not outcome.cancelled():
                outcome.exception()
