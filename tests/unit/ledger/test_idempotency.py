"""A request with an idempotency key is charged once, however often it is repeated."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from hashlib import sha256

import pytest
from sqlalchemy import Connection, Engine, func, select

from serve_app.domain.errors import (
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    LedgerUnavailable,
    RateLimited,
    RerankError,
    ReservationClosed,
)
from serve_app.domain.job import Idempotency
from serve_app.domain.model import Caller, RateLimits
from serve_app.domain.units import Credits, Moment, RequestId, Seconds
from serve_app.ledger.accounts.tenant_accounts import set_tenant_limits
from serve_app.ledger.db.tables import charges, idempotent_requests
from serve_app.ledger.money.idempotency import KEPT_MS
from serve_app.ledger.posting.books import Books
from serve_app.ledger.reports.balances import check_balances
from serve_app.ledger.sql_ledger import SqlLedger
from serve_app.ledger.writer import retention
from serve_app.ledger.writer.limits import LedgerLimits
from serve_app.ports import Quote, Reserved, StoredOutcome
from tests.support.fakes import FakeClock, until
from tests.support.ledger import (
    AUDIT,
    LIMITS,
    NOW,
    R1,
    USAGE,
    LossyEngine,
    a_quote,
    a_reservation,
    a_tenant,
    balance,
    ledger_on,
    state_of,
    write_through,
)

R2, R3 = RequestId("r2"), RequestId("r3")
PRICE = 30
OUTCOME = b"indices and numbers"
DAY_S = KEPT_MS // 1_000


def keyed(key: str = "k", body: str = "body") -> Idempotency:
    return Idempotency(sha256(key.encode()).digest(), sha256(body.encode()).digest())


def quote(request_id: RequestId, idempotency: Idempotency | None = None) -> Quote:
    return replace(a_quote(request_id, PRICE), idempotency=idempotency or keyed())


async def answer(ledger: SqlLedger, caller: Caller, request_id: RequestId = R1) -> None:
    await ledger.reserve(caller, quote(request_id))
    await commit(ledger, request_id)


async def commit(ledger: SqlLedger, request_id: RequestId) -> None:
    await ledger.commit(request_id, Credits(PRICE), USAGE, StoredOutcome(keyed(), OUTCOME))


def in_ledger(
    database_url: str,
    scenario: Callable[[SqlLedger], Awaitable[object]],
    clock: FakeClock | None = None,
    limits: LedgerLimits = LIMITS,
) -> None:
    async def run() -> None:
        await scenario(ledger)

    with ledger_on(database_url, limits, clock) as ledger:
        asyncio.run(run())


def test_a_repeat_gets_the_first_outcome_and_is_not_charged(
    database_url: str, acme: Caller
) -> None:
    async def scenario(ledger: SqlLedger) -> None:
        assert await ledger.reserve(acme, quote(R1)) == Reserved()
        await commit(ledger, R1)

        assert await ledger.reserve(acme, quote(R2)) == Reserved((), R1, OUTCOME)
        assert await ledger.reserve(acme, quote(R3)) == Reserved((), R1, OUTCOME)

    in_ledger(database_url, scenario)

    assert (balance(database_url).charged, balance(database_url).pending) == (PRICE, 0)
    assert state_of(database_url, R2) is None


def test_another_process_knows_the_key(database_url: str, acme: Caller) -> None:
    in_ledger(database_url, lambda ledger: answer(ledger, acme))

    async def repeat(ledger: SqlLedger) -> None:
        assert (await ledger.reserve(acme, quote(R2))).outcome == OUTCOME

    in_ledger(database_url, repeat)


def test_a_repeat_waits_for_the_first_request(database_url: str, acme: Caller) -> None:
    async def scenario(ledger: SqlLedger) -> None:
        await ledger.reserve(acme, quote(R1))
        with pytest.raises(IdempotencyKeyInUse):
            await ledger.reserve(acme, quote(R2))
        await commit(ledger, R1)
        assert (await ledger.reserve(acme, quote(R2))).outcome == OUTCOME

    in_ledger(database_url, scenario)


def test_of_many_repeats_at_once_one_runs(database_url: str, acme: Caller) -> None:
    """They are written as one group, or in several."""

    async def scenario(ledger: SqlLedger) -> None:
        repeats = (ledger.reserve(acme, quote(RequestId(f"r{n}"))) for n in range(30))
        outcomes = await asyncio.gather(*repeats, return_exceptions=True)
        assert sum(outcome == Reserved() for outcome in outcomes) == 1
        assert sum(isinstance(each, IdempotencyKeyInUse) for each in outcomes) == 29

    in_ledger(database_url, scenario)

    assert balance(database_url).pending == PRICE


@pytest.mark.parametrize("charged", [True, False], ids=["charged", "running"])
def test_a_key_serves_one_body(database_url: str, acme: Caller, charged: bool) -> None:
    async def scenario(ledger: SqlLedger) -> None:
        await ledger.reserve(acme, quote(R1))
        if charged:
            await commit(ledger, R1)
        with pytest.raises(IdempotencyKeyReused):
            await ledger.reserve(acme, quote(R2, keyed(body="another")))
        assert await ledger.reserve(acme, quote(R3, keyed("another"))) == Reserved()

    in_ledger(database_url, scenario)


def test_tenants_do_not_share_keys(database_url: str, acme: Caller) -> None:
    other = a_tenant(database_url, 100, "other")

    async def scenario(ledger: SqlLedger) -> None:
        await answer(ledger, acme)
        assert await ledger.reserve(other, quote(R2)) == Reserved()
        assert (await ledger.reserve(acme, quote(R3))).repeats == R1

    in_ledger(database_url, scenario)


def test_keys_of_one_tenant_share_idempotency_keys(database_url: str, acme: Caller) -> None:
    """A client may have replaced its API key before the repeat."""
    rotated = replace(acme, key_id=a_tenant(database_url, 0, "unused").key_id)

    async def scenario(ledger: SqlLedger) -> None:
        await answer(ledger, acme)
        assert (await ledger.reserve(rotated, quote(R2))).repeats == R1

    in_ledger(database_url, scenario)


def test_a_voided_request_frees_its_key(database_url: str, acme: Caller) -> None:
    async def scenario(ledger: SqlLedger) -> None:
        await ledger.reserve(acme, quote(R1))
        ledger.void(R1, USAGE)
        assert await ledger.reserve(acme, quote(R2)) == Reserved()
        await commit(ledger, R2)
        assert (await ledger.reserve(acme, quote(R3))).repeats == R2

    in_ledger(database_url, scenario)

    assert balance(database_url).charged == PRICE


def test_an_expired_request_frees_its_key(database_url: str, acme: Caller) -> None:
    clock = FakeClock()

    async def scenario(ledger: SqlLedger) -> None:
        await ledger.reserve(acme, quote(R1))
        clock.advance(61)
        await until(lambda: state_of(database_url, R1) == "expired")
        assert await ledger.reserve(acme, quote(R2)) == Reserved()
        with pytest.raises(ReservationClosed):
            await commit(ledger, R1)
        await commit(ledger, R2)

    in_ledger(database_url, scenario, clock)

    assert balance(database_url).charged == PRICE


def test_a_key_is_known_for_a_day_and_then_deleted(
    database_url: str, engine: Engine, acme: Caller
) -> None:
    clock = FakeClock()
    seldom = replace(LIMITS, expiry_interval_s=Seconds(3_600))

    async def scenario(ledger: SqlLedger) -> None:
        await answer(ledger, acme)
        clock.advance(DAY_S - 1)
        assert (await ledger.reserve(acme, quote(R2))).repeats == R1
        clock.advance(1)
        assert await ledger.reserve(acme, quote(R3)) == Reserved()

    in_ledger(database_url, scenario, clock, seldom)

    assert number_of(engine) == 1, "the newer request has replaced the older one"
    with engine.begin() as connection:
        assert retention.step(connection, Moment(clock.moment() + KEPT_MS - 1), 90, 10) == 1
    assert number_of(engine) == 1
    with engine.begin() as connection:
        retention.step(connection, Moment(clock.moment() + KEPT_MS), 90, 10)
    assert number_of(engine) == 0


def test_maintenance_deletes_all_keys_in_steps(
    database_url: str, engine: Engine, acme: Caller
) -> None:
    async def scenario(ledger: SqlLedger) -> None:
        for number in range(7):
            request_id = RequestId(f"r{number}")
            await ledger.reserve(
                acme, replace(a_quote(request_id, 1), idempotency=keyed(str(number)))
            )

    in_ledger(database_url, scenario)

    later = Moment(NOW + 2 * KEPT_MS)
    left = []
    for _ in range(3):
        with engine.begin() as connection:
            retention.step(connection, later, 90, 3)
        left.append(number_of(engine))
    assert left == [4, 1, 0]


def number_of(engine: Engine) -> int:
    with engine.begin() as connection:
        return connection.scalar(select(func.count()).select_from(idempotent_requests)) or 0


def test_a_repeat_counts_towards_no_limit_and_needs_no_credit(
    database_url: str, engine: Engine, acme: Caller
) -> None:
    limits = RateLimits(requests_per_minute_max=1, concurrent_requests_max=1)
    with engine.begin() as connection:
        set_tenant_limits(connection, acme.tenant, limits, AUDIT)
    caller = replace(acme, tenant_limits=limits)
    rich = replace(a_quote(R1, 100), idempotency=keyed())

    async def scenario(ledger: SqlLedger) -> None:
        await ledger.reserve(caller, rich)
        await ledger.commit(R1, Credits(100), USAGE, StoredOutcome(keyed(), OUTCOME))
        for request_id in (R2, R3):
            reserved = await ledger.reserve(caller, quote(request_id))
            assert reserved.outcome == OUTCOME
            assert [(each.limit, each.remaining) for each in reserved.rate_limits] == [(1, 0)]
        with pytest.raises(RateLimited):
            await ledger.reserve(caller, quote(RequestId("r4"), keyed("another")))

    in_ledger(database_url, scenario)


def test_a_refused_request_does_not_take_its_key(database_url: str, acme: Caller) -> None:
    async def scenario(ledger: SqlLedger) -> None:
        with pytest.raises(RerankError, match="101"):
            await ledger.reserve(acme, replace(a_quote(R1, 101), idempotency=keyed()))
        assert await ledger.reserve(acme, quote(R2, keyed(body="cheaper"))) == Reserved()

    in_ledger(database_url, scenario)


def test_a_reversed_charge_frees_its_key(database_url: str, acme: Caller) -> None:
    """The first commit is written, but its response is lost."""

    async def scenario(ledger: SqlLedger) -> None:
        await ledger.reserve(acme, quote(R1))
        with pytest.raises(LedgerUnavailable):
            await commit(ledger, R1)
        await until(lambda: state_of(database_url, R1) == "voided")
        await answer(ledger, acme, R2)

    with ledger_on(database_url) as ledger:
        write_through(ledger, LossyEngine(ledger._durable, losses=2))
        asyncio.run(scenario(ledger))

    assert balance(database_url).charged == PRICE


def test_a_charge_whose_answer_was_sent_to_a_repeat_is_not_reversed(
    database_url: str, engine: Engine, acme: Caller
) -> None:
    """The repeat reaches another gateway before the reversal is written."""
    in_ledger(database_url, lambda ledger: answer(ledger, acme))
    in_ledger(database_url, lambda ledger: ledger.reserve(acme, quote(R2)))

    with engine.begin() as connection:
        books = Books.open(connection, (), {R1})
        books.reverse(R1, USAGE, NOW, keyed())
        books.write()

    assert (state_of(database_url, R1), balance(database_url).charged) == ("committed", PRICE)


def test_an_outcome_whose_charge_was_reversed_meanwhile_is_not_sent(
    engine: Engine, acme: Caller
) -> None:
    """The reversal is written between the two transactions of a repeat."""
    with engine.begin() as connection:
        books = Books.open(connection, {acme.tenant}, {R1})
        books.reserve(a_reservation(acme, PRICE), idempotency=keyed())
        books.commit(R1, Credits(PRICE), USAGE, NOW, StoredOutcome(keyed(), OUTCOME))
        books.write()
    with engine.begin() as connection:
        books = Books.open(connection, (), {R1})
        books.reverse(R1, USAGE, NOW, keyed())
        books.write()

    with engine.begin() as connection, pytest.raises(ReservationClosed):
        Books.open(connection, (), {R1}).replay(R1, keyed())


@dataclass
class Expected:
    """A simple model of one key: what each operation does."""

    first: RequestId | None = None
    body: str = ""
    begun_at: int = 0
    state: str = "free"
    charged: set[RequestId] = field(default_factory=set)
    final: set[RequestId] = field(default_factory=set)

    def reserve(self, request_id: RequestId, body: str, now: int) -> str:
        if self.state != "free" and now - self.begun_at < KEPT_MS:
            if body != self.body:
                return "reused"
            if self.state == "running":
                return "in use"
            assert self.first is not None
            self.final.add(self.first)
            return f"repeats {self.first}"
        self.first, self.body, self.begun_at, self.state = request_id, body, now, "running"
        return "runs"


def reserve_in(connection: Connection, acme: Caller, request_id: str, body: str, now: int) -> str:
    wanted = replace(
        a_reservation(acme, 1, request_id, expires_at=now + 60_000), created_at=Moment(now)
    )
    books = Books.open(connection, {acme.tenant}, ())
    books.read_keys({(acme.tenant, keyed().key_sha256)})
    try:
        reserved = books.reserve(wanted, idempotency=keyed(body=body))
    except IdempotencyKeyInUse:
        return "in use"
    except IdempotencyKeyReused:
        return "reused"
    books.write()
    return "runs" if reserved.repeats is None else f"repeats {reserved.repeats}"


@pytest.mark.parametrize("seed", range(8))
def test_random_steps_agree_with_a_simple_model(engine: Engine, acme: Caller, seed: int) -> None:
    """Each request that runs is charged at most once, and only repeats see its outcome."""
    rng = random.Random(seed)
    expected, now = Expected(), int(NOW)
    for number in range(60):
        now += rng.choice([0, 1_000, 30_000, KEPT_MS // 3])
        kind = rng.choice(["reserve", "reserve", "commit", "void", "reverse"])
        known = expected.first
        with engine.begin() as connection:
            if kind == "reserve":
                request_id, body = RequestId(f"r{number}"), rng.choice(["body", "body", "another"])
                outcome = reserve_in(connection, acme, request_id, body, now)
                assert outcome == expected.reserve(request_id, body, now)
                if outcome.startswith("repeats"):
                    replay = Books.open(connection, (), {RequestId(outcome[8:])})
                    replay.replay(RequestId(outcome[8:]), keyed())
                continue
            if known is None:
                continue
            settle(connection, kind, known, Moment(now), expected)
    with engine.begin() as connection:
        assert set(connection.scalars(select(charges.c.request_id))) == expected.charged
        assert not check_balances(connection)


def settle(
    connection: Connection, kind: str, known: RequestId, now: Moment, expected: Expected
) -> None:
    books = Books.open(connection, (), {known})
    if kind == "commit" and expected.state == "running":
        books.commit(known, Credits(1), USAGE, now, StoredOutcome(keyed(), OUTCOME))
        expected.charged.add(known)
        expected.state = "charged"
    elif kind == "void":
        books.void(known, USAGE, now)
        expected.state = "free" if expected.state == "running" else expected.state
    elif kind == "reverse":
        books.reverse(known, USAGE, now, keyed())
        if known not in expected.final:
            expected.charged.discard(known)
            expected.state = "free"
    books.write()
