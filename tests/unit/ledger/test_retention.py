"""Retention never counts a request twice or loses one, even with concurrent gateways."""

import asyncio
import random
import threading
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, func, select

from serve_app.domain.canary import Comparison
from serve_app.domain.model import Caller, RateLimits
from serve_app.domain.units import Credits, ModelId, Moment, RequestId, Revision, Seconds, Tokens
from serve_app.ledger.accounts import credit_grants
from serve_app.ledger.accounts.tenant_accounts import AccountProblem
from serve_app.ledger.db import comparisons
from serve_app.ledger.db.tables import (
    charges,
    rate_windows,
    reservations,
    shadow_comparisons,
    usage_days,
)
from serve_app.ledger.money.calendar import MILLISECONDS_PER_DAY as DAY
from serve_app.ledger.money.calendar import day_of
from serve_app.ledger.money.reservation import Reservation
from serve_app.ledger.posting.rate_limits import NOT_LIMITED, Demand
from serve_app.ledger.reports.balances import check_balances
from serve_app.ledger.writer import maintenance
from serve_app.ledger.writer.limits import LedgerLimits
from serve_app.ledger.writer.retention import step
from serve_app.ports import Usage
from tests.support import postings
from tests.support.fakes import FakeClock, until
from tests.support.killed import kills
from tests.support.ledger import AUDIT, MODEL, a_tenant, balance, ledger_on

TODAY = Moment(1_000 * DAY)
OLD = Moment(TODAY - 200 * DAY)
KEEP_DAYS = 90
ALL = 1_000

Totals = dict[tuple[Any, ...], list[int]]


def reserve(
    connection: Connection,
    caller: Caller,
    request_id: str,
    at: int,
    model: str = MODEL,
    demand: Demand = NOT_LIMITED,
) -> RequestId:
    wanted = Reservation(
        RequestId(request_id),
        caller.tenant,
        caller.key_id,
        ModelId(model),
        Credits(5),
        Moment(at),
        Moment(at + 60_000),
    )
    postings.reserve(connection, wanted, demand)
    return wanted.request_id


def charge(engine: Engine, caller: Caller, request_id: str, at: int, **options: Any) -> RequestId:
    """Charge 3 of 5 reserved micro-dollars for 3 documents and 90 tokens."""
    with engine.begin() as connection:
        known = reserve(connection, caller, request_id, at, **options)
    with engine.begin() as connection:
        postings.commit(connection, known, Credits(3), Usage(3, Tokens(90)), Moment(at))
    return known


def void(engine: Engine, caller: Caller, request_id: str, at: int) -> None:
    with engine.begin() as connection:
        known = reserve(connection, caller, request_id, at)
    with engine.begin() as connection:
        postings.void(connection, known, Usage(2, Tokens(50)), Moment(at))


def retire(engine: Engine, now: int = TODAY, count_max: int = ALL) -> list[int]:
    """Run steps until no row is due; return the number of rows of each step."""
    taken: list[int] = []
    while not taken or taken[-1]:
        with engine.begin() as connection:
            taken.append(step(connection, Moment(now), KEEP_DAYS, count_max))
    return taken[:-1]


def totals(engine: Engine) -> Totals:
    """Return the sums of all settled requests, from rows and daily sums."""
    sums: Totals = defaultdict(lambda: [0] * 6)

    def add(row: Any, at: int, numbers: tuple[int, ...]) -> None:
        group = (row.tenant_id, day_of(Moment(at)), row.key_id, row.model)
        sums[group] = [one + other for one, other in zip(sums[group], numbers, strict=True)]

    with engine.begin() as connection:
        for row in connection.execute(select(charges)):
            add(row, row.charged_at, (1, 0, row.documents, 0, row.tokens, row.amount))
        free = reservations.c.state.in_(["voided", "expired"])
        for row in connection.execute(select(reservations).where(free)):
            add(row, row.settled_at, (1, 1, row.documents, row.documents, row.tokens, 0))
        for row in connection.execute(select(usage_days)):
            add(row, row.day, row[4:])
    return dict(sums)


def count(engine: Engine, table: Any, *where: Any) -> int:
    with engine.begin() as connection:
        return int(connection.scalar(select(func.count()).select_from(table).where(*where)) or 0)


def balances_hold(engine: Engine) -> None:
    with engine.begin() as connection:
        assert check_balances(connection) == []


def test_old_charges_become_sums_and_newer_ones_stay(engine: Engine, acme: Caller) -> None:
    for number in range(3):
        charge(engine, acme, f"old{number}", OLD + number)
    kept_from = TODAY - KEEP_DAYS * DAY
    charge(engine, acme, "last", kept_from - 1, model="other")
    charge(engine, acme, "kept", kept_from)
    before = totals(engine)

    retire(engine)

    assert totals(engine) == before
    with engine.begin() as connection:
        assert connection.scalars(select(charges.c.request_id)).all() == ["kept"]
        rows = connection.execute(select(usage_days).order_by(usage_days.c.day)).all()
    assert [tuple(row) for row in rows] == [
        (acme.tenant, OLD, acme.key_id, MODEL, 3, 0, 9, 0, 270, 9),
        (acme.tenant, kept_from - DAY, acme.key_id, "other", 1, 0, 3, 0, 90, 3),
    ]
    balances_hold(engine)


def test_uncharged_usage_is_summed_up_separately(engine: Engine, acme: Caller) -> None:
    charge(engine, acme, "charged", OLD)
    void(engine, acme, "voided", OLD)
    with engine.begin() as connection:
        reserve(connection, acme, "expired", OLD - 60_000)
    with engine.begin() as connection:
        maintenance.expire_due(connection, OLD, ALL)
    void(engine, acme, "young", TODAY)

    retire(engine)

    with engine.begin() as connection:
        (row,) = connection.execute(select(usage_days)).all()
        assert connection.scalars(select(reservations.c.id)).all() == ["young"]
    assert row[4:] == (3, 2, 5, 2, 140, 3)


def test_a_sum_grows_when_more_of_its_day_is_added(engine: Engine, acme: Caller) -> None:
    """A gateway with a slow clock can write it."""
    charge(engine, acme, "first", OLD)
    retire(engine)
    charge(engine, acme, "second", OLD)
    before = totals(engine)

    retire(engine)

    assert totals(engine) == before
    assert count(engine, usage_days) == 1
    assert count(engine, charges) == 0


def test_a_committed_reservation_is_deleted_after_a_day_and_its_charge_stays(
    engine: Engine, acme: Caller
) -> None:
    charge(engine, acme, "older", TODAY - DAY - 1)
    charge(engine, acme, "younger", TODAY - DAY)

    retire(engine)

    with engine.begin() as connection:
        assert connection.scalars(select(reservations.c.id)).all() == ["younger"]
    assert count(engine, charges) == 2
    assert count(engine, usage_days) == 0


def test_a_pending_reservation_is_kept(engine: Engine, acme: Caller) -> None:
    with engine.begin() as connection:
        reserve(connection, acme, "r1", OLD)

    assert retire(engine) == []
    assert count(engine, reservations) == 1


def test_a_step_is_bounded(engine: Engine, acme: Caller) -> None:
    for number in range(12):
        charge(engine, acme, f"r{number}", OLD + number * DAY)
    void(engine, acme, "v", OLD)
    before = totals(engine)

    taken = retire(engine, count_max=5)

    assert max(taken) <= 5
    assert sum(taken) == 2 * 12 + 1
    assert totals(engine) == before


def test_every_tenant_gets_its_turn(engine: Engine, database_url: str) -> None:
    for number in range(7):
        tenant = a_tenant(database_url, 100, name=f"t{number}")
        for request in range(3):
            charge(engine, tenant, f"r{number}-{request}", OLD + number)
    before = totals(engine)

    retire(engine, count_max=10)

    assert totals(engine) == before
    assert (count(engine, charges), count(engine, usage_days)) == (0, 7)


STEP = f"""
from serve_app.domain.units import Moment, Seconds
from serve_app.ledger.db.engines import transaction
from serve_app.ledger.writer.retention import step

with transaction(url, Seconds(5)) as connection:
    step(connection, Moment({TODAY}), {KEEP_DAYS}, {ALL})
"""


@pytest.mark.slow
def test_a_killed_step_changes_nothing(engine: Engine, database_url: str, acme: Caller) -> None:
    charge(engine, acme, "r1", OLD)
    void(engine, acme, "r2", OLD)
    before = totals(engine)
    after: list[tuple[int, int]] = []

    def look() -> None:
        assert totals(engine) == before
        after.append((count(engine, charges), count(engine, usage_days)))

    assert kills(STEP, database_url, look) >= 8

    assert set(after) == {(1, 0)}
    assert totals(engine) == before
    assert (count(engine, charges), count(engine, usage_days)) == (0, 1)
    balances_hold(engine)


def test_concurrent_retention_and_charges_count_everything_once(
    engine: Engine, database_url: str
) -> None:
    callers = [a_tenant(database_url, 10_000, name=f"t{number}") for number in range(3)]
    for caller in callers:
        for number in range(30):
            charge(engine, caller, f"{caller.key_id}-{number}", OLD + number)
    start = threading.Barrier(4)

    def retire_all() -> None:
        start.wait()
        for _ in range(20):
            with engine.begin() as connection:
                step(connection, TODAY, KEEP_DAYS, 7)

    def pay(turn: int) -> None:
        start.wait()
        for number in range(30):
            charge(engine, callers[number % 3], f"new{turn}-{number}", OLD)

    with ThreadPoolExecutor(4) as threads:
        jobs = [threads.submit(retire_all), threads.submit(retire_all)]
        jobs += [threads.submit(pay, turn) for turn in range(2)]
        for job in jobs:
            job.result()
    retire(engine)

    requests, free, documents, *_, charged = map(sum, zip(*totals(engine).values(), strict=True))
    assert (requests, free, documents, charged) == (150, 0, 450, 450)
    assert count(engine, charges) == 0
    balances_hold(engine)


def test_a_charge_that_is_being_reversed_is_not_summed_up(engine: Engine, acme: Caller) -> None:
    known = charge(engine, acme, "r1", OLD)
    taken: list[int] = []
    retiring = threading.Thread(target=lambda: taken.extend(retire(engine)))

    with engine.begin() as connection:
        postings.reverse(connection, known, Usage(3, Tokens(90)), TODAY)
        retiring.start()
        retiring.join(0.3)  # It has read the charge and waits for the tenant's lock.
        assert retiring.is_alive()
    retiring.join()

    assert taken == []
    assert (count(engine, charges), count(engine, usage_days)) == (0, 0)
    balances_hold(engine)


def test_a_late_reversal_changes_nothing(engine: Engine, acme: Caller) -> None:
    known = charge(engine, acme, "r1", OLD)
    retire(engine)
    before = totals(engine)

    with engine.begin() as connection:
        postings.reverse(connection, known, Usage(3, Tokens(90)), TODAY)

    assert totals(engine) == before
    balances_hold(engine)


def test_a_late_refund_is_refused(engine: Engine, acme: Caller) -> None:
    known = charge(engine, acme, "r1", OLD)
    retire(engine)

    with pytest.raises(AccountProblem, match="no charge"), engine.begin() as connection:
        credit_grants.refund(connection, known, None, "late", AUDIT)

    balances_hold(engine)


def test_a_refund_of_a_charge_that_is_summed_up_later_stays(engine: Engine, acme: Caller) -> None:
    known = charge(engine, acme, "r1", OLD)
    with engine.begin() as connection:
        credit_grants.refund(connection, known, Credits(2), "sorry", AUDIT)

    retire(engine)

    balances_hold(engine)
    with engine.begin() as connection:
        kept = credit_grants.list_grants(connection, acme.tenant)
    assert {(each.kind, each.amount, each.request_id) for each in kept} == {
        ("grant", 100, None),
        ("refund", 2, known),
    }


@pytest.mark.parametrize("seed", range(3))
def test_a_clock_jump_loses_no_charge(engine: Engine, database_url: str, seed: int) -> None:
    chance = random.Random(seed)
    caller = a_tenant(database_url, 10_000)
    expected = [0, 0, 0]
    for number in range(60):
        now = Moment(TODAY + chance.randrange(-200 * DAY, 200 * DAY))
        match chance.randrange(3):
            case 0:
                charge(engine, caller, f"r{number}", now)
                expected = [expected[0] + 1, expected[1], expected[2] + 3]
            case 1:
                void(engine, caller, f"r{number}", now)
                expected = [expected[0] + 1, expected[1] + 1, expected[2] + 2]
            case _:
                with engine.begin() as connection:
                    step(connection, now, KEEP_DAYS, chance.randrange(1, 10))
        balances_hold(engine)

    requests, free, documents, *_ = map(sum, zip(*totals(engine).values(), strict=True))
    assert [requests, free, documents] == expected
    assert count(engine, usage_days) > 0


def test_a_rate_window_is_deleted_after_an_idle_hour(engine: Engine, database_url: str) -> None:
    limited = RateLimits(requests_per_minute_max=100)
    demand = Demand(1, key_limits=limited, tenant_limits=limited)
    idle, busy = (a_tenant(database_url, 100, name=name) for name in ("idle", "busy"))
    with engine.begin() as connection:
        reserve(connection, idle, "r1", TODAY, demand=demand)
        reserve(connection, busy, "r2", TODAY, demand=demand)
        reserve(connection, busy, "r3", TODAY + 1_000, demand=demand)
    assert count(engine, rate_windows) == 4

    retire(engine, now=TODAY + 3_601_000)

    with engine.begin() as connection:
        left = connection.scalars(select(rate_windows.c.subject)).all()
    assert set(left) == {busy.tenant, busy.key_id}


def test_a_comparison_is_deleted_after_a_week(engine: Engine) -> None:
    def compared(request_id: str, at: int) -> Comparison:
        names = (RequestId(request_id), ModelId(MODEL), Revision("live"), Revision("canary"))
        seconds, tokens = (Seconds(1), Seconds(2)), (Tokens(3), Tokens(4))
        return Comparison(*names, Moment(at), 30, 0.9, 0.8, *seconds, *tokens)

    ages_days = (1, 6, 8, 9, 10)
    with engine.begin() as connection:
        for age in ages_days:
            comparisons.add(connection, compared(f"r{age}", TODAY - age * DAY))

    assert retire(engine, count_max=2) == [2, 1]

    with engine.begin() as connection:
        left = connection.scalars(select(shadow_comparisons.c.request_id)).all()
    assert sorted(left) == ["r1", "r6"]


def test_a_gateway_runs_retention(database_url: str, acme: Caller, engine: Engine) -> None:
    charge(engine, acme, "r1", OLD)
    clock = FakeClock()
    limits = LedgerLimits(expiry_interval_s=Seconds(0.02), charges_kept_days=KEEP_DAYS)

    with ledger_on(database_url, limits, clock):
        clock.advance(TODAY / 1_000)
        asyncio.run(until(lambda: count(engine, charges) == 0))

    assert count(engine, usage_days) == 1
    assert balance(database_url).charged == 3


@contextmanager
def taking(clock: FakeClock, seconds: float, engine: Engine) -> Iterator[Connection]:
    with engine.begin() as connection:
        yield connection
        clock.advance(seconds)


def test_retention_takes_a_tenth_of_the_writer_time(engine: Engine, acme: Caller) -> None:
    charge(engine, acme, "r1", OLD)
    clock = FakeClock()
    limits = LedgerLimits(charges_kept_days=KEEP_DAYS, expiry_interval_s=Seconds(1_000))
    keeper = maintenance.Maintenance(clock, limits)

    clock.advance(1)
    assert keeper.run(engine.begin) == clock.instant() + maintenance.RETENTION_INTERVAL_S - 1
    assert count(engine, charges) == 1, (
        "the first step waits, so that gateways that start together do not collide"
    )

    clock.advance(TODAY / 1_000)
    due = clock.instant()
    # Two transactions: one for expiry, one for retention.
    assert keeper.run(lambda: taking(clock, 2, engine)) == due + 4 + 18
    assert count(engine, charges) == 0

    clock.advance(18)
    due = clock.instant()
    assert keeper.run(engine.begin) == due + maintenance.RETENTION_INTERVAL_S


def test_a_failed_step_is_retried_later(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    limits = LedgerLimits()
    keeper = maintenance.Maintenance(clock, limits)
    clock.advance(maintenance.RETENTION_INTERVAL_S)
    with engine.begin() as connection:
        charges.drop(connection)

    assert keeper.run(engine.begin) == clock.instant() + limits.expiry_interval_s
    assert "ledger_maintenance_failed" in caplog.text
