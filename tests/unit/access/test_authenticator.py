"""Keys work while they should, stop when they must, and cost the database little."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from serve_app.access.api_keys import ApiKey, generate
from serve_app.access.authenticator import Authenticator
from serve_app.domain.errors import LedgerUnavailable, Unauthenticated
from serve_app.domain.model import Caller
from serve_app.domain.units import KeyId, Moment, Seconds, TenantId
from serve_app.ports import StoredKey
from tests.fakes import FakeClock

CACHE_S = Seconds(5.0)
KEY = generate()


def stored(key: ApiKey) -> StoredKey:
    caller = Caller(TenantId("tn_acme"), key.key_id, frozenset({"rerank"}), None)
    return StoredKey(caller, key.secret_sha256, revoked_at=None, expires_at=None)


class FakeStore:
    """Holds keys, counts the questions, and answers when ``gate`` is open."""

    def __init__(self, *keys: ApiKey) -> None:
        self.keys = {key.key_id: stored(key) for key in keys}
        self.asked: list[KeyId] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.down = False

    async def find_key(self, key_id: KeyId) -> StoredKey | None:
        self.asked.append(key_id)
        await self.gate.wait()
        if self.down:
            raise LedgerUnavailable("down")
        return self.keys.get(key_id)


class Door:
    """An authenticator, its store and its clock."""

    def __init__(self, *keys: ApiKey, cache_s: Seconds = CACHE_S) -> None:
        self.clock = FakeClock()
        self.store = FakeStore(*keys)
        self.access = Authenticator(self.store, self.clock, cache_s, keys_max=3, misses_max=10)

    async def lets_in(self, api_key: str | None) -> bool:
        try:
            await self.access.authenticate(api_key)
        except Unauthenticated:
            return False
        return True


def test_a_good_key_names_its_caller() -> None:
    async def scenario() -> Caller:
        return await Door(KEY).access.authenticate(KEY.reveal())

    assert asyncio.run(scenario()) == stored(KEY).caller


@pytest.mark.parametrize(
    "api_key", [None, "", "rk_x_y", "é" * 80, pytest.param("r" * 10_000_000, id="huge")]
)
def test_what_is_not_a_key_is_refused_without_asking_the_database(api_key: str | None) -> None:
    async def scenario() -> None:
        door = Door(KEY)
        assert not await door.lets_in(api_key)
        assert door.store.asked == []

    asyncio.run(scenario())


def test_a_wrong_secret_is_refused_and_changes_nothing_for_the_owner() -> None:
    forged = replace(KEY, secret="0" * 64).reveal()

    async def scenario() -> None:
        door = Door(KEY)
        letting = [await door.lets_in(key) for key in (forged, KEY.reveal(), forged, KEY.reveal())]
        assert letting == [False, True, False, True]
        assert len(door.store.asked) == 1

    asyncio.run(scenario())


def test_a_revoked_key_works_no_longer_than_the_cache_lives() -> None:
    async def scenario() -> None:
        door = Door(KEY)
        assert await door.lets_in(KEY.reveal())
        door.store.keys[KEY.key_id] = replace(stored(KEY), revoked_at=door.clock.moment())
        door.clock.advance(CACHE_S - 0.01)
        assert await door.lets_in(KEY.reveal())
        door.clock.advance(0.01)
        assert not await door.lets_in(KEY.reveal())

    asyncio.run(scenario())


def test_the_caches_time_counts_from_before_the_read() -> None:
    async def scenario() -> None:
        door = Door(KEY)
        door.store.gate.clear()
        slow = asyncio.create_task(door.lets_in(KEY.reveal()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        door.clock.advance(3)
        door.store.gate.set()
        assert await slow
        door.store.keys.clear()
        door.clock.advance(2)
        assert not await door.lets_in(KEY.reveal())

    asyncio.run(scenario())


def test_without_a_cache_every_request_asks() -> None:
    async def scenario() -> None:
        door = Door(KEY, cache_s=Seconds(0))
        assert await door.lets_in(KEY.reveal())
        assert await door.lets_in(KEY.reveal())
        assert len(door.store.asked) == 2

    asyncio.run(scenario())


def test_a_key_expires_to_the_millisecond_even_while_it_is_cached() -> None:
    async def scenario() -> None:
        door = Door(KEY)
        expires_at = Moment(door.clock.moment() + 1_000)
        door.store.keys[KEY.key_id] = replace(stored(KEY), expires_at=expires_at)
        assert await door.lets_in(KEY.reveal())
        door.clock.advance(1)
        assert not await door.lets_in(KEY.reveal())

    asyncio.run(scenario())


def test_requests_with_the_same_key_at_once_ask_the_database_once() -> None:
    async def scenario() -> None:
        door = Door(KEY)
        letting = await asyncio.gather(*(door.lets_in(KEY.reveal()) for _ in range(50)))
        assert all(letting)
        assert len(door.store.asked) == 1

    asyncio.run(scenario())


def test_a_client_that_hangs_up_does_not_fail_those_who_wait_with_it() -> None:
    async def scenario() -> None:
        door = Door(KEY)
        door.store.gate.clear()
        gone, patient = (asyncio.create_task(door.lets_in(KEY.reveal())) for _ in range(2))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        door.store.gate.set()
        assert await patient
        assert gone.cancelled()

    asyncio.run(scenario())


def test_a_database_that_is_down_is_reported_and_asked_again_by_the_next() -> None:
    async def scenario() -> None:
        door = Door(KEY)
        door.store.down = True
        with pytest.raises(LedgerUnavailable):
            await door.lets_in(KEY.reveal())
        door.store.down = False
        assert await door.lets_in(KEY.reveal())

    asyncio.run(scenario())


def test_an_id_that_does_not_exist_is_asked_for_once_per_cache_time() -> None:
    async def scenario() -> None:
        door = Door()
        assert not await door.lets_in(KEY.reveal())
        assert not await door.lets_in(KEY.reveal())
        assert len(door.store.asked) == 1
        door.clock.advance(CACHE_S)
        door.store.keys[KEY.key_id] = stored(KEY)
        assert await door.lets_in(KEY.reveal())

    asyncio.run(scenario())


def test_guessing_ids_takes_bounded_memory_and_pushes_no_real_key_out() -> None:
    guesses = [generate() for _ in range(30)]

    async def scenario() -> None:
        door = Door(KEY)
        assert await door.lets_in(KEY.reveal())
        for guess in guesses:
            assert not await door.lets_in(guess.reveal())
        assert await door.lets_in(KEY.reveal())
        assert asked_again(door.store.asked) == []
        assert len(door.access._misses) == 10

    asyncio.run(scenario())


def test_more_keys_than_the_cache_holds_still_work() -> None:
    keys = [generate() for _ in range(5)]

    async def scenario() -> None:
        door = Door(*keys)
        for key in (*keys, *keys):
            assert await door.lets_in(key.reveal())
        assert len(door.access._keys) == 3

    asyncio.run(scenario())


def asked_again(asked: Sequence[KeyId]) -> list[KeyId]:
    return [key_id for key_id in asked if asked.count(key_id) > 1]
