"""Asking the database for keys: one question at a time, with many ids in it.

What is asked for while a question is under way goes into the next one. So guessing ids costs the
database one query of bounded size at a time, with a pause after each that met an id that does not
exist; and a key that this process has never seen is found among thousands of guesses all the same.
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
"""More than the requests that a gateway holds at once, so only a fault ever reaches it."""

PAUSE_S = Seconds(0.02)
"""So guessing gets 50 questions a second at most: 25,000 ids, more than a gateway can read."""

RETRY_AFTER_S = 1

Sleep = Callable[[float], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Known:
    """What the database said of an id, and when it was asked."""

    key: StoredKey | None
    asked_at: Instant


class Lookups:
    """One event loop. Its memory is bounded by the ids that may wait."""

    def __init__(self, store: KeyStore, clock: Clock, sleep: Sleep = asyncio.sleep) -> None:
        self._store = store
        self._clock = clock
        self._sleep = sleep
        self._waiting: OrderedDict[KeyId, asyncio.Future[Known]] = OrderedDict()
        self._asked: dict[KeyId, asyncio.Future[Known]] = {}
        self._asking: asyncio.Task[None] | None = None

    async def find(self, key_id: KeyId, *, exists: bool) -> Known:
        """What the database says of this id.

        ``exists``: the database has said before that there is such a key. It is asked for first,
        and whatever number of others waits.

        The question is nobody's own: the hang-up of one client must not fail the others' requests.

        Raises:
            Overloaded: Too many ids wait; the database was not asked.
            LedgerUnavailable: The database did not answer.
        """
        answer = self._asked.get(key_id) or self._waiting.get(key_id)
        if answer is None:
            if not exists and len(self._waiting) >= IDS_WAITING_MAX:
                raise Overloaded(RETRY_AFTER_S)
            answer = asyncio.get_running_loop().create_future()
            # Its error is nobody's where all who waited have gone.
            answer.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._waiting[key_id] = answer
            if exists:
                self._waiting.move_to_end(key_id, last=False)
            if self._asking is None:
                self._asking = asyncio.create_task(self._ask())
        return await asyncio.shield(answer)

    async def _ask(self) -> None:
        """Until nothing waits."""
        try:
            while self._waiting:
                key_ids = list(islice(self._waiting, IDS_PER_LOOKUP_MAX))
                self._asked = {key_id: self._waiting.pop(key_id) for key_id in key_ids}
                if await self._answer(self._asked):
                    await self._sleep(PAUSE_S)
        finally:
            self._asking = None

    async def _answer(self, asked: dict[KeyId, asyncio.Future[Known]]) -> bool:
        """Ask one question; whether some of the ids do not exist."""
        # The age counts from before the read: a revocation may come while it is under way.
        asked_at = self._clock.instant()
        try:
            found = await self._store.find_keys(list(asked))
        except Exception as error:  # noqa: BLE001 - raised by whoever waits for it
            for answer in asked.values():
                answer.set_exception(error)
            return False
        finally:
            self._asked = {}
        for key_id, answer in asked.items():
            answer.set_result(Known(found.get(key_id), asked_at))
        return len(found) < len(asked)
