"""From an API key to its caller, asking the database at most every few seconds per key.

The cache is keyed by the public id and holds what the database said, not whether a secret matched:
a wrong secret changes nothing in it. Keys that exist and ids that do not are kept apart, so that
guessing ids cannot push real keys out.
"""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass

from serve_app.access.api_keys import matches, parse
from serve_app.domain.clock import Clock
from serve_app.domain.errors import Unauthenticated
from serve_app.domain.model import Caller
from serve_app.domain.units import Instant, KeyId, Seconds
from serve_app.ports import KeyStore, StoredKey

KEYS_CACHED_MAX = 10_000
MISSES_CACHED_MAX = 1_000


@dataclass(frozen=True, slots=True)
class _Known:
    """What the database said of an id, and when it was asked."""

    key: StoredKey | None
    asked_at: Instant


class Authenticator:
    """Implements `serve_app.ports.Access`. One event loop."""

    def __init__(
        self,
        store: KeyStore,
        clock: Clock,
        cache_s: Seconds,
        *,
        keys_max: int = KEYS_CACHED_MAX,
        misses_max: int = MISSES_CACHED_MAX,
    ) -> None:
        """``cache_s`` is how long a revoked key may go on working; the rest bounds memory."""
        self._store = store
        self._clock = clock
        self._cache_s = cache_s
        self._keys_max = keys_max
        self._misses_max = misses_max
        self._keys: OrderedDict[KeyId, _Known] = OrderedDict()
        self._misses: OrderedDict[KeyId, _Known] = OrderedDict()
        self._lookups: dict[KeyId, asyncio.Task[_Known]] = {}

    async def authenticate(self, api_key: str | None) -> Caller:
        """The caller behind ``api_key``. The error does not say what is wrong with it.

        Raises: Unauthenticated, LedgerUnavailable.
        """
        parsed = parse(api_key)
        if parsed is None:
            raise Unauthenticated
        stored = await self._find(parsed.key_id)
        matched = matches(parsed, None if stored is None else stored.secret_sha256)
        if stored is None or not matched or not self._is_valid(stored):
            raise Unauthenticated
        return stored.caller

    def _is_valid(self, stored: StoredKey) -> bool:
        expired = stored.expires_at is not None and self._clock.moment() >= stored.expires_at
        return stored.revoked_at is None and not expired

    async def _find(self, key_id: KeyId) -> StoredKey | None:
        for cache in (self._keys, self._misses):
            known = cache.get(key_id)
            if known is not None and self._clock.instant() < known.asked_at + self._cache_s:
                cache.move_to_end(key_id)
                return known.key
        return (await self._look_up(key_id)).key

    async def _look_up(self, key_id: KeyId) -> _Known:
        """Ask the database, or wait for somebody who is asking already.

        The read is nobody's own: the hang-up of one client must not fail the others' requests.
        """
        lookup = self._lookups.get(key_id)
        if lookup is None:
            lookup = asyncio.create_task(self._ask(key_id))
            self._lookups[key_id] = lookup
            lookup.add_done_callback(lambda done: self._asked(key_id, done))
        return await asyncio.shield(lookup)

    async def _ask(self, key_id: KeyId) -> _Known:
        # The age counts from before the read: a revocation may come while it is under way.
        asked_at = self._clock.instant()
        return _Known(await self._store.find_key(key_id), asked_at)

    def _asked(self, key_id: KeyId, lookup: asyncio.Task[_Known]) -> None:
        del self._lookups[key_id]
        if lookup.cancelled() or lookup.exception() is not None:
            return
        known = lookup.result()
        self._keys.pop(key_id, None)
        self._misses.pop(key_id, None)
        cache, count_max = (
            (self._misses, self._misses_max) if known.key is None else (self._keys, self._keys_max)
        )
        cache[key_id] = known
        if len(cache) > count_max:
            cache.popitem(last=False)
