"""Find the caller behind an API key, with at most one database query per key every few seconds.

The cache holds the database's result for a public id, so a wrong secret does not change it. Unknown
ids have a separate cache, so that guesses cannot evict real keys.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence

from serve_app.access.api_keys import matches, parse
from serve_app.access.lookups import Known, Lookups, Sleep
from serve_app.domain.clock import Clock
from serve_app.domain.errors import Forbidden, Overloaded, Unauthenticated
from serve_app.domain.model import Caller
from serve_app.domain.units import KeyId, Seconds
from serve_app.ports import KeyStore, StoredKey
from serve_app.telemetry.metrics import WRONG_SECRETS, Metrics

KEYS_CACHED_MAX = 10_000
MISSES_CACHED_MAX = 1_000


class Authenticator:
    """Implements `serve_app.ports.Access` for one event loop."""

    def __init__(
        self,
        store: KeyStore,
        clock: Clock,
        metrics: Metrics,
        cache_s: Seconds,
        *,
        keys_max: int = KEYS_CACHED_MAX,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """``cache_s`` limits how long a revoked key still works."""
        self._clock = clock
        self._cache_s = cache_s
        self._keys_max = keys_max
        self._metrics = metrics
        self._lookups = Lookups(store, clock, sleep)
        self._keys: OrderedDict[KeyId, Known] = OrderedDict()
        self._misses: OrderedDict[KeyId, Known] = OrderedDict()

    async def authenticate(self, api_keys: Sequence[str], *scopes: str) -> Caller:
        """The error names a revocation or expiry only to a caller with the key's secret."""
        caller = await self._caller(api_keys)
        check_scopes(caller, scopes)
        return caller

    async def _caller(self, api_keys: Sequence[str]) -> Caller:
        overloaded: Overloaded | None = None
        ended: str | None = None
        for parsed in filter(None, map(parse, api_keys)):
            try:
                stored = await self._find(parsed.key_id)
            except Overloaded as error:  # Another key may not need a lookup.
                overloaded = error
                continue
            if stored is None:
                continue
            if not matches(parsed, stored.secret_sha256):
                self._metrics.record(WRONG_SECRETS)
            elif (ended := self._ended(stored)) is None:
                return stored.caller
        if overloaded is not None:
            raise overloaded
        raise Unauthenticated(ended)

    def _ended(self, stored: StoredKey) -> str | None:
        if stored.revoked_at is not None:
            return "was revoked"
        expired = stored.expires_at is not None and self._clock.moment() >= stored.expires_at
        return "has expired" if expired else None

    async def _find(self, key_id: KeyId) -> StoredKey | None:
        for cache in (self._keys, self._misses):
            known = cache.get(key_id)
            if known is not None and self._clock.instant() < known.asked_at + self._cache_s:
                cache.move_to_end(key_id)
                return known.key
        known = await self._lookups.find(key_id, exists=key_id in self._keys)
        self._remember(key_id, known)
        return known.key

    def _remember(self, key_id: KeyId, known: Known) -> None:
        self._keys.pop(key_id, None)
        self._misses.pop(key_id, None)
        if known.key is None:
            _put(self._misses, key_id, known, MISSES_CACHED_MAX)
        else:
            _put(self._keys, key_id, known, self._keys_max)


def check_scopes(caller: Caller, scopes: Sequence[str]) -> None:
    if caller.scopes.isdisjoint(scopes):
        names = " or ".join(f"'{scope}'" for scope in scopes)
        raise Forbidden(f"this route: it needs the scope {names}")


def _put(cache: OrderedDict[KeyId, Known], key_id: KeyId, value: Known, count_max: int) -> None:
    cache[key_id] = value
    if len(cache) > count_max:
        cache.popitem(last=False)
