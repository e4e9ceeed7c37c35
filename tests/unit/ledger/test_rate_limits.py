"""Limits of keys and tenants hold across all gateways, whatever the clocks do."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count

import pytest
from sqlalchemy import Engine, event, func, select

from serve_app.domain.errors import (
    ConcurrencyLimited,
    OutOfCredit,
    RateLimited,
    RerankError,
    SpendCapReached,
    TooLarge,
)
from serve_app.domain.model import UNLIMITED, Caller, RateLimits, RateLimitState
from serve_app.domain.units import Credits, KeyId, Moment, RequestId
from serve_app.ledger.accounts import tenant_accounts, tenant_keys
from serve_app.ledger.db.audit_log import AuditContext
from serve_app.ledger.db.engines import open_writer, opened, transaction
from serve_app.ledger.db.tables import api_keys, rate_windows, tenants
from serve_app.ledger.money.calendar import bounds_of
from serve_app.ledger.posting.rate_limits import Demand
from serve_app.ledger.sql_ledger import SqlLedger
from serve_app.ledger.writer import maintenance
from serve_app.ports import Reserved
from tests.support import postings
from tests.support.fakes import FakeClock
from tests.support.ledger import (
    AUDIT,
    NOW,
    R1,
    TIMEOUT_S,
    USAGE,
    a_quote,
    a_reservation,
    a_tenant,
    balance_in,
    ledger_on,
)

MINUTE_MS = 61_000
OTHER_KEY = KeyId("other-key")
_numbers = count()

Outcome = tuple[RateLimitState, ...] | RerankError


def limited_by(caller: Caller, key: RateLimits, tenant: RateLimits = UNLIMITED) -> Caller:
    return replace(caller, key_limits=key, tenant_limits=tenant)


def ask(
    engine: Engine, caller: Caller, now: int = NOW, *, amount: int = 1, documents: int = 1
) -> Outcome:
    """Make one request at ``now``. As in gateways, a refusal's transaction is committed."""
    wanted = replace(
        a_reservation(caller, amount, f"request-{next(_numbers)}", expires_at=now + 60_000),
        created_at=Moment(now),
        key_capped=caller.key_limits.monthly_budget_micro_dollars is not None,
    )
    demand = Demand(documents, caller.key_limits, caller.tenant_limits)
    with engine.begin() as connection:
        try:
            return postings.reserve(connection, wanted, demand)
        except RerankError as refusal:
            return refusal


def recorded(engine: Engine) -> list[str]:
    """Return a list that receives every later statement."""
    statements: list[str] = []
    event.listen(
        engine,
        "before_cursor_execute",
        lambda _c, _cursor, statement, *_: statements.append(statement),
    )
    return statements


def let_in(outcome: Outcome) -> bool:
    return isinstance(outcome, tuple)


def with_other_key(engine: Engine, caller: Caller) -> Caller:
    with engine.begin() as connection:
        new = tenant_keys.NewKey(OTHER_KEY, bytes(32), "other", {"rerank"}, None, None)
        tenant_keys.create_key(connection, caller.tenant, new, AUDIT)
    return replace(caller, key_id=OTHER_KEY)


def at_once(database_url: str, calls: int, one: Callable[[Engine], bool]) -> int:
    """Make calls from two gateways with two threads each; return the number admitted."""
    with (
        opened(open_writer(database_url, TIMEOUT_S, connections=2)) as first,
        opened(open_writer(database_url, TIMEOUT_S, connections=2)) as second,
        ThreadPoolExecutor(4) as threads,
    ):
        return sum(threads.map(lambda number: one((first, second)[number % 2]), range(calls)))


@pytest.mark.parametrize(
    ("limits", "documents", "expected"),
    [
        (RateLimits(requests_per_minute_max=13), 1, 13),
        (RateLimits(documents_per_minute_max=50), 3, 16),
        (RateLimits(concurrent_requests_max=7), 1, 7),
        (RateLimits(monthly_budget_micro_dollars=Credits(11)), 1, 11),
    ],
)
@pytest.mark.parametrize("whose", ["key", "tenant"])
def test_two_gateways_together_admit_exactly_the_limit(
    database_url: str, engine: Engine, whose: str, limits: RateLimits, documents: int, expected: int
) -> None:
    acme = a_tenant(database_url, 100)
    set_limits(engine, acme, whose, limits)
    caller = limited_by(acme, *((limits,) if whose == "key" else (UNLIMITED, limits)))

    admitted = at_once(
        database_url, 40, lambda each: let_in(ask(each, caller, documents=documents))
    )

    assert admitted == expected
    assert balance_in(engine).pending == expected


def set_limits(engine: Engine, caller: Caller, whose: str, limits: RateLimits) -> None:
    with engine.begin() as connection:
        if whose == "key":
            tenant_keys.set_key_limits(connection, caller.key_id, limits, AUDIT)
        else:
            tenant_accounts.set_tenant_limits(connection, caller.tenant, limits, AUDIT)


def test_a_tenant_limit_counts_all_its_keys_and_a_key_limit_only_its_own(
    engine: Engine, acme: Caller
) -> None:
    mine = limited_by(
        acme, RateLimits(requests_per_minute_max=1), RateLimits(requests_per_minute_max=2)
    )
    other = with_other_key(engine, mine)

    assert let_in(ask(engine, mine))
    refusal = ask(engine, mine)
    assert isinstance(refusal, RateLimited)
    assert refusal.whose == "key"
    assert let_in(ask(engine, other))
    third = replace(other, key_limits=UNLIMITED)
    refusal = ask(engine, third)
    assert isinstance(refusal, RateLimited)
    assert refusal.whose == "tenant"


def test_the_tighter_state_is_returned_and_a_refused_request_does_not_count(
    engine: Engine, acme: Caller
) -> None:
    caller = limited_by(
        acme, RateLimits(requests_per_minute_max=5), RateLimits(requests_per_minute_max=2)
    )
    admitted = [ask(engine, caller) for _ in range(2)]
    refusal = ask(engine, caller)

    assert [
        [each.remaining for each in states] for states in admitted if isinstance(states, tuple)
    ] == [
        [1],
        [0],
    ]
    assert isinstance(refusal, RateLimited)
    assert [(each.limit, each.remaining) for each in refusal.states] == [(2, 0)]
    roomy = replace(caller, tenant_limits=UNLIMITED)
    after = ask(engine, roomy)
    assert isinstance(after, tuple)
    assert after[0].remaining == 2


PER_MINUTE = RateLimits(requests_per_minute_max=5, documents_per_minute_max=50)


@pytest.mark.parametrize(
    ("limits", "request_size", "error"),
    [
        ((PER_MINUTE,), {"amount": 101}, OutOfCredit),
        ((UNLIMITED, PER_MINUTE), {"amount": 101}, OutOfCredit),
        ((PER_MINUTE,), {"documents": 51}, TooLarge),
        ((PER_MINUTE, RateLimits(concurrent_requests_max=1)), {}, ConcurrencyLimited),
        ((replace(PER_MINUTE, concurrent_requests_max=1),), {}, ConcurrencyLimited),
        (
            (replace(PER_MINUTE, monthly_budget_micro_dollars=Credits(3)),),
            {"amount": 3},
            SpendCapReached,
        ),
    ],
)
def test_every_refusal_carries_the_limits_without_the_refused_request(
    engine: Engine,
    acme: Caller,
    limits: tuple[RateLimits, ...],
    request_size: dict[str, int],
    error: type[RerankError],
) -> None:
    set_limits(engine, acme, "key", limits[0])
    caller = limited_by(acme, *limits)
    assert let_in(ask(engine, caller, documents=7))

    refusal = ask(engine, caller, **request_size)

    assert isinstance(refusal, error)
    assert [(each.what, each.limit, each.remaining) for each in refusal.states] == [
        ("requests", 5, 4),
        ("documents", 50, 43),
    ]


def test_a_refusal_without_limits_per_minute_reads_no_window(engine: Engine, acme: Caller) -> None:
    statements = recorded(engine)

    refusal = ask(engine, acme, amount=101)

    assert isinstance(refusal, OutOfCredit)
    assert refusal.states == ()
    assert not any("rate_windows" in statement for statement in statements)


def test_retry_after_is_when_both_key_and_tenant_admit_it(engine: Engine, acme: Caller) -> None:
    mine = limited_by(
        acme, RateLimits(requests_per_minute_max=1), RateLimits(requests_per_minute_max=2)
    )
    other = replace(with_other_key(engine, mine), key_limits=UNLIMITED)
    assert let_in(ask(engine, mine, NOW))
    assert let_in(ask(engine, other, NOW + 20_000))
    assert let_in(ask(engine, other, NOW + MINUTE_MS))
    # The key's limit is free again. The tenant's older request counts for 1 s more.
    late = NOW + MINUTE_MS + 19_000

    refusal = ask(engine, mine, late)

    assert isinstance(refusal, RateLimited)
    assert let_in(ask(engine, mine, late + refusal.retry_after_s * 1_000))


def test_the_longer_of_two_waits_is_returned(engine: Engine, acme: Caller) -> None:
    mine = limited_by(
        acme, RateLimits(requests_per_minute_max=1), RateLimits(documents_per_minute_max=10)
    )
    other = replace(with_other_key(engine, mine), key_limits=UNLIMITED)
    assert let_in(ask(engine, mine, NOW))
    assert let_in(ask(engine, other, NOW + 30_000, documents=9))

    refusal = ask(engine, mine, NOW + 31_000, documents=5)

    assert isinstance(refusal, RateLimited)
    assert (refusal.whose, refusal.retry_after_s) == ("tenant", 60)
    assert let_in(ask(engine, mine, NOW + 91_000, documents=5))


class WallClock(FakeClock):
    """A clock with a wall time that jumps and instants that do not."""

    jumped_s = 0

    def jump(self, seconds: int) -> None:
        self.jumped_s += seconds

    def moment(self) -> Moment:
        return Moment(NOW + self.jumped_s * 1_000)


def test_a_clock_an_hour_ahead_delays_requests_for_at_most_a_minute(
    database_url: str, acme: Caller
) -> None:
    clock = WallClock()
    caller = limited_by(acme, RateLimits(requests_per_minute_max=1))

    async def asked(ledger: SqlLedger, number: int) -> bool:
        try:
            await ledger.reserve(caller, a_quote(RequestId(f"r{number}"), 1))
        except RateLimited:
            return False
        return True

    async def scenario(ledger: SqlLedger) -> None:
        clock.jump(3_600)
        assert await asked(ledger, 1)
        clock.jump(-3_600)
        assert not await asked(ledger, 2)
        clock.jump(60)
        assert not await asked(ledger, 3)
        clock.jump(1)
        assert await asked(ledger, 4)
        clock.jump(-3_600)
        assert not await asked(ledger, 5)
        clock.jump(61)
        assert await asked(ledger, 6)

    with ledger_on(database_url, clock=clock) as ledger:
        asyncio.run(scenario(ledger))


def test_a_request_refused_for_another_reason_does_not_count(engine: Engine, acme: Caller) -> None:
    caller = limited_by(acme, RateLimits(requests_per_minute_max=1))

    assert isinstance(ask(engine, caller, amount=101), OutOfCredit)

    with engine.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(rate_windows)) == 0
    assert let_in(ask(engine, caller))


def test_a_caller_without_limits_reads_no_window(engine: Engine, acme: Caller) -> None:
    statements = recorded(engine)

    assert let_in(ask(engine, acme))

    assert statements
    assert not any("rate_windows" in statement for statement in statements)


def test_a_request_counts_as_running_until_it_is_settled_or_expired(
    engine: Engine, acme: Caller
) -> None:
    caller = limited_by(acme, RateLimits(concurrent_requests_max=1))
    with engine.begin() as connection:
        postings.reserve(connection, a_reservation(caller, 1, R1))
    refusal = ask(engine, caller)
    assert isinstance(refusal, ConcurrencyLimited)
    assert (refusal.whose, refusal.limit) == ("key", 1)

    # The reservation is overdue, but not yet expired.
    assert let_in(ask(engine, caller, NOW + 60_000))
    assert not let_in(ask(engine, caller, NOW + 60_001))

    other = with_other_key(engine, caller)
    assert let_in(ask(engine, other, NOW + 60_001))
    both = limited_by(other, UNLIMITED, RateLimits(concurrent_requests_max=2))
    assert not let_in(ask(engine, both, NOW + 60_002))


@pytest.mark.parametrize("end", ["void", "commit", "reverse"])
def test_a_settled_request_no_longer_counts_as_running(
    engine: Engine, acme: Caller, end: str
) -> None:
    caller = limited_by(acme, RateLimits(concurrent_requests_max=1))
    with engine.begin() as connection:
        postings.reserve(connection, a_reservation(caller, 1, R1))
        if end == "commit":
            postings.commit(connection, R1, Credits(1), USAGE, NOW)
        else:
            getattr(postings, end)(connection, R1, USAGE, NOW)

    assert let_in(ask(engine, caller))


def test_requests_of_one_group_count_each_other(database_url: str, acme: Caller) -> None:
    caller = limited_by(acme, RateLimits(concurrent_requests_max=3))

    async def scenario(ledger: SqlLedger) -> list[object]:
        quotes = (a_quote(RequestId(f"r{number}"), 1) for number in range(10))
        asked = (ledger.reserve(caller, quote) for quote in quotes)
        return list(await asyncio.gather(*asked, return_exceptions=True))

    with ledger_on(database_url) as ledger:
        outcomes = asyncio.run(scenario(ledger))

    assert sum(isinstance(each, Reserved) for each in outcomes) == 3
    assert sum(isinstance(each, ConcurrencyLimited) for each in outcomes) == 7


CAP = RateLimits(monthly_budget_micro_dollars=Credits(10))
FEBRUARY, _ = bounds_of(202602)
JANUARY = Moment(FEBRUARY - 1_000)


@pytest.fixture(params=["key", "tenant"])
def whose(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def capped(engine: Engine, acme: Caller, whose: str) -> Caller:
    """A caller with a monthly cap of 10 on its key or its tenant."""
    with engine.begin() as connection:
        january = AuditContext("tester", Moment(JANUARY))
        if whose == "key":
            tenant_keys.set_key_limits(connection, acme.key_id, CAP, january)
        else:
            tenant_accounts.set_tenant_limits(connection, acme.tenant, CAP, january)
    return limited_by(acme, *((CAP,) if whose == "key" else (UNLIMITED, CAP)))


def spent(engine: Engine, whose: str) -> tuple[int, int]:
    table = api_keys if whose == "key" else tenants
    with engine.connect() as connection:
        row = connection.execute(select(table.c.spent_month, table.c.spent_amount)).one()
        return row.spent_month, row.spent_amount


def test_a_budget_refuses_what_would_exceed_it_and_names_its_owner(
    engine: Engine, capped: Caller, whose: str
) -> None:
    assert let_in(ask(engine, capped, JANUARY, amount=8))

    refusal = ask(engine, capped, JANUARY, amount=3)

    assert isinstance(refusal, SpendCapReached)
    assert (refusal.whose, refusal.cap) == (whose, 10)
    assert let_in(ask(engine, capped, JANUARY, amount=2))
    assert balance_in(engine).pending == 10


def test_a_new_month_starts_at_zero_and_the_old_one_does_not_return(
    engine: Engine, capped: Caller
) -> None:
    assert let_in(ask(engine, capped, JANUARY, amount=10))
    assert let_in(ask(engine, capped, FEBRUARY, amount=6))

    # A gateway with a slow clock spends from the new month, and the cap still holds.
    assert not let_in(ask(engine, capped, JANUARY, amount=5))
    assert let_in(ask(engine, capped, JANUARY, amount=4))
    assert not let_in(ask(engine, capped, FEBRUARY, amount=1))


@pytest.mark.parametrize("end", ["void", "reverse", "expire", "commit less", "reverse a charge"])
def test_uncharged_reservations_are_not_spent(
    engine: Engine, capped: Caller, whose: str, end: str
) -> None:
    wanted = replace(
        a_reservation(capped, 10, R1, expires_at=JANUARY + 500),
        created_at=Moment(JANUARY),
        key_capped=whose == "key",
    )
    now = Moment(JANUARY + 600)
    with engine.begin() as connection:
        postings.reserve(connection, wanted)
    with engine.begin() as connection:
        if end == "expire":
            assert maintenance.expire_due(connection, now, 10) == 1
        elif end == "commit less":
            postings.commit(connection, R1, Credits(0), USAGE, now)
        elif end == "reverse a charge":
            postings.commit(connection, R1, Credits(10), USAGE, now)
            postings.reverse(connection, R1, USAGE, now)
        else:
            getattr(postings, end)(connection, R1, USAGE, now)

    assert spent(engine, whose) == (202601, 0)
    assert let_in(ask(engine, capped, JANUARY, amount=10))


def test_a_void_in_the_next_month_does_not_change_that_month(
    engine: Engine, capped: Caller, whose: str
) -> None:
    wanted = replace(
        a_reservation(capped, 10, R1), created_at=Moment(JANUARY), key_capped=whose == "key"
    )
    with engine.begin() as connection:
        postings.reserve(connection, wanted)
    assert let_in(ask(engine, capped, FEBRUARY, amount=9))
    with engine.begin() as connection:
        postings.void(connection, R1, USAGE, Moment(FEBRUARY))

    assert spent(engine, whose) == (202602, 9)
    assert not let_in(ask(engine, capped, FEBRUARY, amount=2))


def test_a_clock_that_jumps_back_and_forth_spends_no_budget_twice(
    engine: Engine, capped: Caller
) -> None:
    moments = [JANUARY, FEBRUARY] * 10
    asked = [(moment, let_in(ask(engine, capped, moment, amount=3))) for moment in moments]

    # Three fit into January before February begins, and three more into February.
    assert sum(passed for _, passed in asked) <= 3 + 1
    for month in (JANUARY, FEBRUARY):
        assert 3 * sum(passed for moment, passed in asked if moment == month) <= 10


def test_a_budget_set_within_a_month_counts_its_earlier_spending(
    engine: Engine, acme: Caller, whose: str
) -> None:
    assert let_in(ask(engine, acme, JANUARY, amount=7))
    with engine.begin() as connection:
        january = AuditContext("tester", Moment(JANUARY))
        if whose == "key":
            tenant_keys.set_key_limits(connection, acme.key_id, CAP, january)
        else:
            tenant_accounts.set_tenant_limits(connection, acme.tenant, CAP, january)
    caller = limited_by(acme, *((CAP,) if whose == "key" else (UNLIMITED, CAP)))

    assert not let_in(ask(engine, caller, JANUARY, amount=4))
    assert let_in(ask(engine, caller, JANUARY, amount=3))


def test_the_rows_of_two_tenants_do_not_mix(database_url: str, engine: Engine) -> None:
    acme, bolt = (a_tenant(database_url, 100, name) for name in ("acme", "bolt"))
    limits = RateLimits(requests_per_minute_max=1, monthly_budget_micro_dollars=Credits(10))
    with transaction(database_url, TIMEOUT_S) as connection:
        tenant_accounts.set_tenant_limits(connection, acme.tenant, limits, AUDIT)
    mine = limited_by(acme, UNLIMITED, limits)

    assert let_in(ask(engine, mine, amount=10))
    assert not let_in(ask(engine, mine))
    assert all(let_in(ask(engine, bolt, amount=20)) for _ in range(3))
