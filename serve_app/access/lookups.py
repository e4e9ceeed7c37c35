"""Batched key lookups: one database query at a time, with many ids in it.

Guessed ids cost the database one query of bounded size at a time, with a pause after each query
that contained an unknown id. A new key is still found among thousands of guesses.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import islice

from serve_app.domain.clock import Clock
from serve_app.domain.errors import Overloaded
from serve_app.domain.units import Instant, KeyId, Seconds
from serve_app.ports import KeyStore, StoredKey

IDS_PER_LOOKUP_MAX = 500
IDS_WAITING_MAX = 2_000

PAUSE_S = Seconds(0.02)
"""Limits guessing to 25,000 ids per second, more than a gateway can read."""

RETRY_AFTER_S = 1

Sleep = Callable[[float], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Known:
    """The database's result for an id, and the start time of the query."""

    key: StoredKey | None
    asked_at: Instant


class Lookups:
    """Batches lookups on one event loop."""

    def __init__(self, store: KeyStore, clock: Clock, sleep: Sleep = asyncio.sleep) -> None:
        self._store = store
        self._clock = clock
        self._sleep = sleep
        self._waiting: OrderedDict[KeyId, asyncio.Future[Known]] = OrderedDict()
        self._asked: dict[KeyId, asyncio.Future[Known]] = {}
        self._asking: asyncio.Task[None] | None = None

    async def find(self, key_id: KeyId, *, exists: bool) -> Known:
        """Return the database's result. Raises: Overloaded, LedgerUnavailable.

        A known key (``exists``) goes to the front of the queue, even if that is full. Callers share
        a query, so the disconnect of one client does not cancel it for the others.
        """
        answer = self._asked.get(key_id) or self._waiting.get(key_id)
        if answer is None:
            if not exists and len(self._waiting) >= IDS_WAITING_MAX:
                raise Overloaded(RETRY_AFTER_S)
            answer = asyncio.get_running_loop().create_future()
            # Mark the exception as retrieved: every client may have disconnected.
            answer.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._waiting[key_id] = answer
            if exists:
                self._waiting.move_to_end(key_id, last=False)
            if self._asking is None:
                self._asking = asyncio.create_task(self._ask())
        return await asyncio.shield(answer)

    async def _ask(self) -> None:
        try:
            while self._waiting:
                key_ids = list(islice(self._waiting, IDS_PER_LOOKUP_MAX))
                self._asked = {key_id: self._waiting.pop(key_id) for key_id in key_ids}
                if await self._answer(self._asked):
                    await self._sleep(PAUSE_S)
        finally:
            self._asking = None

    async def _answer(self, asked: dict[KeyId, asyncio.Future[Known]]) -> bool:
        """Run one query; return whether some of the ids do not exist."""
        # Taken before the query: a key may be revoked while it runs.
        asked_at = self._clock.instant()
        try:
            found = await self._store.find_keys(list(asked))
        except Exception as error:  # noqa: BLE001 - raised to each waiting caller
            for answer in asked.values():
                answer.set_exception(error)
            return False
        finally:
            self._asked = {}
        for key_id, answer in asked.items():
            answer.set_result(Known(found.get(key_id), asked_at))
        return len(found) < len(asked)
