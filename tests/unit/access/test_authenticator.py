"""Keys are accepted while valid, refused soon after revocation, and rarely looked up."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

import pytest

from serve_app.access.api_keys import SCOPE_ADMIN, SCOPE_RERANK, ApiKey, generate
from serve_app.access.authenticator import (
    MISSES_CACHED_MAX,
    Authenticator,
)
from serve_app.access.lookups import IDS_PER_LOOKUP_MAX, IDS_WAITING_MAX, PAUSE_S
from serve_app.domain.errors import Forbidden, LedgerUnavailable, Overloaded, Unauthenticated
from serve_app.domain.model import Caller
from serve_app.domain.units import KeyId, Moment, Seconds, TenantId
from serve_app.ports import StoredKey
from serve_app.telemetry.metrics import WRONG_SECRETS
from tests.support.fakes import FakeClock, RecordingSink, some_metrics

CACHE_S = Seconds(5.0)
KEY = generate()
FORGED = replace(KEY, secret="0" * 64).reveal()


def stored(key: ApiKey) -> StoredKey:
    caller = Caller(TenantId("tn_acme"), key.key_id, frozenset({SCOPE_RERANK}), None)
    return StoredKey(caller, key.secret_sha256, revoked_at=None, expires_at=None)


class FakeStore:
    """Holds keys, records queries, and answers them while ``gate`` is set."""

    def __init__(self, *keys: ApiKey) -> None:
        self.keys = {key.key_id: stored(key) for key in keys}
        self.questions: list[list[KeyId]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.down = False

    @property
    def asked(self) -> list[KeyId]:
        return [key_id for question in self.questions for key_id in question]

    async def find_keys(self, key_ids: Sequence[KeyId]) -> dict[KeyId, StoredKey]:
        self.questions.append(list(key_ids))
        await self.gate.wait()
        if self.down:
            raise LedgerUnavailable("down")
        return {key_id: self.keys[key_id] for key_id in key_ids if key_id in self.keys}


class Door:
    """An authenticator, its store and its clock. Sleeping advances the clock."""

    def __init__(self, *keys: ApiKey, cache_s: Seconds = CACHE_S, keys_max: int = 3) -> None:
        self.clock = FakeClock()
        self.store = FakeStore(*keys)
        self.sink = RecordingSink()
        self.access = Authenticator(
            self.store,
            self.clock,
            some_metrics(self.sink),
            cache_s,
            keys_max=keys_max,
            sleep=self.sleep,
        )

    async def sleep(self, seconds: float) -> None:
        self.clock.advance(seconds)
        await asyncio.sleep(0)

    async def lets_in(self, api_key: str | None) -> bool:
        try:
            await self.access.authenticate([] if api_key is None else [api_key], SCOPE_RERANK)
        except (Unauthenticated, Overloaded):
            return False
        return True


def test_a_good_key_names_its_caller() -> None:
    async def scenario() -> Caller:
        return await Door(KEY).access.authenticate([KEY.reveal()], SCOPE_RERANK)

    assert asyncio.run(scenario()) == stored(KEY).caller


def test_a_key_opens_only_the_routes_in_its_scopes() -> None:
    async def scenario(*scopes: str) -> Caller:
        return await Door(KEY).access.authenticate([KEY.reveal()], *scopes)

    assert asyncio.run(scenario(SCOPE_ADMIN, SCOPE_RERANK)) == stored(KEY).caller
    with pytest.raises(Forbidden, match=f"the scope '{SCOPE_ADMIN}'"):
        asyncio.run(scenario(SCOPE_ADMIN))


@pytest.mark.parametrize(
    "api_key", [None, "", "rk_x_y", "é" * 80, pytest.param("r" * 10_000_000, id="huge")]
)
def test_malformed_keys_are_refused_without_a_database_query(api_key: str | None) -> None:
    async def scenario() -> None:
        door = Door(KEY)
        assert not await door.lets_in(api_key)
        assert door.store.asked == []

    asyncio.run(scenario())


def test_a_wrong_secret_is_refused_and_changes_nothing_for_the_owner() -> None:
    async def scenario() -> None:
        door = Door(KEY)
        letting = [await door.lets_in(key) for key in (FORGED, KEY.reveal(), FORGED, KEY.reveal())]
        assert letting == [False, True, False, True]
        assert len(door.store.asked) == 1

    asyncio.run(scenario())


def test_a_revoked_key_works_no_longer_than_its_cache_entry() -> None:
    async def scenario() -> None:
        door = Door(KEY)
        assert await door.lets_in(KEY.reveal())
        door.store.keys[KEY.key_id] = replace(stored(KEY), revoked_at=door.clock.moment())
        door.clock.advance(CACHE_S - 0.01)
        assert await door.lets_in(KEY.reveal())
        door.clock.advance(0.01)
        assert not await door.lets_in(KEY.reveal())

    asyncio.run(scenario())


def test_the_cache_time_starts_before_the_read() -> None:
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


def test_without_a_cache_every_request_queries_the_database() -> None:
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


def test_concurrent_requests_with_one_key_share_one_query() -> None:
    async def scenario() -> None:
        door = Door(KEY)
        letting = await asyncio.gather(*(door.lets_in(KEY.reveal()) for _ in range(50)))
        assert all(letting)
        assert len(door.store.asked) == 1

    asyncio.run(scenario())


def test_a_client_that_disconnects_does_not_fail_others_with_the_same_key() -> None:
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


def test_a_database_failure_is_reported_and_the_next_request_queries_again() -> None:
    async def scenario() -> None:
        door = Door(KEY)
        door.store.down = True
        with pytest.raises(LedgerUnavailable):
            await door.lets_in(KEY.reveal())
        door.store.down = False
        assert await door.lets_in(KEY.reveal())

    asyncio.run(scenario())


def test_an_unknown_id_is_queried_once_per_cache_time() -> None:
    async def scenario() -> None:
        door = Door()
        assert not await door.lets_in(KEY.reveal())
        assert not await door.lets_in(KEY.reveal())
        assert len(door.store.asked) == 1
        door.clock.advance(CACHE_S)
        door.store.keys[KEY.key_id] = stored(KEY)
        assert await door.lets_in(KEY.reveal())

    asyncio.run(scenario())


def test_more_keys_than_the_cache_holds_still_work() -> None:
    keys = [generate() for _ in range(5)]

    async def scenario() -> None:
        door = Door(*keys)
        for key in (*keys, *keys):
            assert await door.lets_in(key.reveal())
        assert len(door.access._keys) == 3

    asyncio.run(scenario())


def batched(keys: Iterable[str], count: int) -> Iterator[list[str]]:
    left = iter(keys)
    while batch := list(islice(left, count)):
        yield batch


def random_keys(count: int) -> Iterator[str]:
    """Return keys that are well-formed and unknown, without the cost of random ones."""
    return (f"rk_{number:012d}_{'0' * 64}" for number in range(count))


@pytest.mark.slow  # 100,000 calls
def test_a_flood_of_unknown_ids_causes_few_bounded_queries() -> None:
    """100,000 ids, 500 concurrently, while a known and a new key are authenticated."""
    known, new = generate(), generate()
    at_once = 500

    async def scenario() -> None:
        door = Door(known, new)
        assert await door.lets_in(known.reveal())
        started = door.clock.instant()
        letting = []
        for batch in batched(random_keys(100_000), at_once):
            letting.append(await door.lets_in(known.reveal()))
            assert not any(await asyncio.gather(*(door.lets_in(each) for each in batch)))
            assert len(door.access._misses) <= MISSES_CACHED_MAX
        assert all(letting)
        assert await door.lets_in(new.reveal())

        most_questions = (door.clock.instant() - started) / PAUSE_S + 2
        again = door.store.asked.count(known.key_id)
        assert 100_000 / IDS_PER_LOOKUP_MAX <= len(door.store.questions) <= most_questions + again
        assert max(len(question) for question in door.store.questions) <= IDS_PER_LOOKUP_MAX
        assert again <= 1 + (door.clock.instant() - started) / CACHE_S
        assert door.access._lookups._waiting == {}

    asyncio.run(scenario())


def test_uncached_keys_are_accepted_during_a_flood() -> None:
    new = generate()

    async def scenario() -> None:
        door = Door(new)
        door.store.gate.clear()  # The database is slow, so guesses are queued.
        guesses = [
            asyncio.create_task(door.lets_in(each)) for each in random_keys(IDS_WAITING_MAX - 1)
        ]
        await asyncio.sleep(0)
        owner = asyncio.create_task(door.lets_in(new.reveal()))
        await asyncio.sleep(0)
        door.store.gate.set()

        assert await owner
        assert not any(await asyncio.gather(*guesses))
        assert len(door.store.questions) <= 2 + IDS_WAITING_MAX / IDS_PER_LOOKUP_MAX

    asyncio.run(scenario())


def test_ids_beyond_the_queue_limit_are_refused_but_a_known_key_is_queried_next() -> None:
    async def scenario() -> None:
        door = Door(KEY)
        assert await door.lets_in(KEY.reveal())
        door.clock.advance(CACHE_S)
        door.store.gate.clear()
        first = asyncio.create_task(door.lets_in(generate().reveal()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        guesses = [asyncio.create_task(door.lets_in(each)) for each in random_keys(IDS_WAITING_MAX)]
        await asyncio.sleep(0)
        asked = len(door.store.questions)

        with pytest.raises(Overloaded) as refusal:
            await door.access.authenticate([generate().reveal()], SCOPE_RERANK)
        assert refusal.value.retry_after_s >= 1
        assert len(door.store.questions) == asked

        owner = asyncio.create_task(door.lets_in(KEY.reveal()))
        await asyncio.sleep(0)
        door.store.gate.set()
        assert await owner
        assert KEY.key_id in door.store.questions[asked]
        await asyncio.gather(first, *guesses)

    asyncio.run(scenario())


def test_a_wrong_secret_of_a_known_key_is_counted() -> None:
    async def scenario() -> None:
        door = Door(KEY)
        for api_key in (FORGED, KEY.reveal(), FORGED, generate().reveal(), "rk_x_y"):
            await door.lets_in(api_key)
        assert door.sink.values == {WRONG_SECRETS.name: [(1, {}), (1, {})]}

    asyncio.run(scenario())


NOW_S = FakeClock().now_s


@pytest.mark.parametrize(
    ("change", "let_in"),
    [
        ({}, True),
        ({"expires_at": Moment(int(NOW_S * 1_000) + 1)}, True),
        ({"expires_at": Moment(int(NOW_S * 1_000))}, False),
        ({"expires_at": Moment(0)}, False),
        ({"revoked_at": Moment(int(NOW_S * 1_000))}, False),
        ({"revoked_at": Moment(int(NOW_S * 1_000) + 10_000)}, False),
        ({"revoked_at": Moment(0), "expires_at": Moment(10**15)}, False),
    ],
)
def test_a_key_works_until_it_is_revoked_or_expires(
    change: dict[str, Moment], let_in: bool
) -> None:
    async def scenario() -> None:
        door = Door(KEY)
        door.store.keys[KEY.key_id] = replace(stored(KEY), **change)  # type: ignore[arg-type]  # from the parameters
        assert await door.lets_in(KEY.reveal()) == let_in

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"revoked_at": Moment(0)}, "The API key was revoked."),
        ({"expires_at": Moment(0)}, "The API key has expired."),
    ],
)
def test_only_the_holder_of_the_secret_learns_how_a_key_ended(
    change: dict[str, Moment], message: str
) -> None:
    async def refusal(api_key: str, **changed: Moment) -> str:
        door = Door(KEY)
        door.store.keys[KEY.key_id] = replace(stored(KEY), **changed)  # type: ignore[arg-type]  # from the parameters
        with pytest.raises(Unauthenticated) as error:
            await door.access.authenticate([api_key], SCOPE_RERANK)
        return error.value.public_message

    assert asyncio.run(refusal(KEY.reveal(), **change)).startswith(message)
    forged = asyncio.run(refusal(FORGED, **change))
    assert forged == asyncio.run(refusal(FORGED)) == asyncio.run(refusal("rk_x_y", **change))
