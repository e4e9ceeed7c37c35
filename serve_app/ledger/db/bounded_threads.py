"""Threads for blocking database calls of the event loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from serve_app.domain.errors import LedgerUnavailable
from serve_app.domain.units import Seconds

T = TypeVar("T")


class TooManyCalls(LedgerUnavailable):
    """No further call may wait."""


class BoundedThreads:
    """A thread pool that limits how many ``calls`` wait or run, and how long they wait."""

    def __init__(self, what: str, *, threads: int, calls_max: int, timeout_s: Seconds) -> None:
        self._what = what
        self._calls_max = calls_max
        self._timeout_s = timeout_s
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=f"ledger-{what}")
        self.calls = 0

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)

    async def call(self, work: Callable[[], T], *, abandon: bool = False) -> T:
        """Return the result of ``work``, which must begin within the time limit.

        ``abandon``: do not wait for a call that has begun but exceeds the limit. The default waits,
        because only the database determines the outcome of a change.

        Raises: TooManyCalls, LedgerUnavailable.
        """
        if self.calls >= self._calls_max:
            raise TooManyCalls(f"too many {self._what} are waiting")
        self.calls += 1
        future = self._threads.submit(work)
        outcome = asyncio.wrap_future(future)
        try:
            done, _ = await asyncio.wait({outcome}, timeout=self._timeout_s)
            if not done and (future.cancel() or abandon):
                raise LedgerUnavailable(f"{self._what} take too long")
            return await outcome
        finally:
            self.calls -= 1
            # asyncio would log an exception that is not retrieved.
            if not outcome.cancel() and not outcome.cancelled():
                outcome.exception()
