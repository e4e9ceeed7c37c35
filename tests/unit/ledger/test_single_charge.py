"""A single charge has the same effect as a charge in a group, and happens once."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, select, text

from serve_app.domain.errors import ReservationClosed
from serve_app.domain.model import Caller
from serve_app.domain.units import Credits, Moment, RequestId
from serve_app.ledger.db.engines import transaction
from serve_app.ledger.db.tables import charges, outbox, reservations
from serve_app.ledger.money.reservation import Reservation
from serve_app.ledger.posting import steps
from serve_app.ledger.posting.books import Books
from serve_app.ledger.posting.single_charge import SingleCharge
from serve_app.ledger.writer.operation import Operation
from serve_app.ledger.writer.operation_group import apply
from tests.support.ledger import (
    NOW,
    TIMEOUT_S,
    USAGE,
    a_quote,
    a_reservation,
    balance,
    balance_in,
    ledger_on,
    state_of,
)

LATER = Moment(NOW + 60_000)
PRICE = Credits(30)


def reserve(engine: Engine, acme: Caller, request_id: str = "r1") -> Reservation:
    wanted = a_reservation(acme, PRICE, request_id)
    with engine.begin() as connection:
        steps.reserve(connection, wanted)
    return wanted


def charge(reserved: Reservation) -> SingleCharge:
    return SingleCharge(reserved, USAGE, NOW)


def row_of(connection: Connection, request_id: RequestId) -> list[Any]:
    """Return the rows of a request, without its id."""
    settled = connection.execute(select(reservations).where(reservations.c.id == request_id)).one()
    charged = connection.execute(select(charges).where(charges.c.request_id == request_id)).one()
    told = connection.execute(select(outbox).where(outbox.c.event_id == request_id)).one()
    return [*settled[1:], *charged[1:], told.type, told.tenant_id, told.at, told.data]


def test_it_leaves_what_a_charge_in_a_group_leaves(engine: Engine, acme: Caller) -> None:
    alone, grouped = reserve(engine, acme, "alone"), reserve(engine, acme, "grouped")

    with engine.begin() as connection:
        assert charge(alone).write(connection, events=True)
    with engine.begin() as connection:
        books = Books.open(connection, (), {grouped.request_id}, events=True)
        books.commit(grouped.request_id, PRICE, USAGE, NOW)
        books.write()

    with engine.begin() as connection:
        assert row_of(connection, alone.request_id) == row_of(connection, grouped.request_id)
    assert (balance_in(engine).available, balance_in(engine).charged) == (40, 60)


@pytest.mark.parametrize(
    "settle",
    [
        pytest.param(lambda c, r: steps.void(c, r.request_id, USAGE, NOW), id="voided"),
        pytest.param(lambda c, _: steps.expire_due(c, LATER, 10), id="expired"),
        pytest.param(
            lambda c, r: steps.commit(c, r.request_id, PRICE, USAGE, NOW), id="charged already"
        ),
        pytest.param(
            lambda c, r: steps.commit(c, r.request_id, Credits(1), USAGE, NOW), id="charged less"
        ),
    ],
)
def test_what_is_settled_is_left_alone(
    engine: Engine, acme: Caller, settle: Callable[[Connection, Reservation], object]
) -> None:
    reserved = reserve(engine, acme)
    with engine.begin() as connection:
        settle(connection, reserved)
    before = balance_in(engine)

    with engine.begin() as connection:
        assert not charge(reserved).write(connection, events=False)

    assert balance_in(engine) == before


def test_of_another_amount_than_was_reserved_nothing_is_written(
    engine: Engine, acme: Caller
) -> None:
    reserved = reserve(engine, acme)

    with engine.begin() as connection:
        assert not charge(replace(reserved, amount=Credits(29))).write(connection, events=False)

    assert balance_in(engine).pending == 30


@pytest.mark.parametrize("rival", ["void", "expire", "commit"])
def test_of_two_that_settle_at_once_one_does(engine: Engine, acme: Caller, rival: str) -> None:
    """Checked in a hundred races."""
    rivals: dict[str, Callable[[Connection, RequestId], object]] = {
        "void": lambda connection, name: steps.void(connection, name, USAGE, NOW),
        "expire": lambda connection, _: steps.expire_due(connection, LATER, 10),
        "commit": lambda connection, name: steps.commit(connection, name, PRICE, USAGE, NOW),
    }

    def charge_it(reserved: Reservation) -> bool:
        with engine.begin() as connection:
            return charge(reserved).write(connection, events=False)

    def settle_it(reserved: Reservation) -> None:
        with engine.begin() as connection:
            rivals[rival](connection, reserved.request_id)

    with ThreadPoolExecutor(2) as threads:
        for number in range(100):
            reserved = reserve(engine, acme, f"r{number}")
            other = threads.submit(settle_it, reserved)
            won = threads.submit(charge_it, reserved).result()
            other.result()
            with engine.begin() as connection:
                rows = connection.execute(select(charges)).all()
                state = connection.scalar(
                    select(reservations.c.state).where(reservations.c.id == reserved.request_id)
                )
                connection.execute(text("UPDATE tenants SET available = 100"))
                connection.execute(text("DELETE FROM charges"))
                connection.execute(text("DELETE FROM reservations"))
            charged = won or rival == "commit"
            assert len(rows) == charged
            assert (state == "committed") == charged


def test_it_waits_for_nobody_who_holds_its_account(kind: str, engine: Engine, acme: Caller) -> None:
    """SQLite is an exception, because a writer locks the whole database."""
    reserved = reserve(engine, acme)

    with engine.begin() as holder:
        steps.lock_accounts(holder, {acme.tenant}, ())
        if kind == "postgresql":
            with engine.begin() as connection:
                assert charge(reserved).write(connection, events=False)

    with engine.begin() as connection:
        assert charge(reserved).write(connection, events=False) == (kind == "sqlite")
    assert balance_in(engine).charged == 30


def test_one_that_was_cancelled_in_time_leaves_nothing(engine: Engine, acme: Caller) -> None:
    reserved = reserve(engine, acme)
    cancelled = Operation(lambda _: None, reserved.request_id, single_charge=charge(reserved))
    cancelled.future.cancel()
    begun: list[Operation] = []

    with engine.begin() as connection:
        assert apply(connection, [cancelled], begun, events=False) == []

    assert begun == []
    assert balance_in(engine).pending == 30


def test_a_ledger_charges_what_it_reserved_and_remembers_no_longer(
    database_url: str, acme: Caller
) -> None:
    r1, r2, r3 = (RequestId(f"r{number}") for number in (1, 2, 3))

    async def run() -> None:
        for request_id in (r1, r2, r3):
            await ledger.reserve(acme, a_quote(request_id, 30))
        await ledger.commit(r1, Credits(30), USAGE)
        ledger.void(r2, USAGE)
        await ledger.commit(r3, Credits(20), USAGE)
        with pytest.raises(ReservationClosed):
            await ledger.commit(r2, Credits(30), USAGE)
        await ledger.commit(r1, Credits(30), USAGE)  # A repetition has no effect.
        assert not ledger._reserved

    with ledger_on(database_url) as ledger:
        asyncio.run(run())

    assert [state_of(database_url, each) for each in (r1, r2, r3)] == [
        "committed",
        "voided",
        "committed",
    ]
    assert (balance(database_url).available, balance(database_url).charged) == (50, 50)


def test_one_that_expired_is_refused(database_url: str, acme: Caller) -> None:
    async def run() -> None:
        await ledger.reserve(acme, a_quote(RequestId("r1"), 30))
        with transaction(database_url, TIMEOUT_S) as connection:
            steps.expire_due(connection, Moment(10**15), 10)
        with pytest.raises(ReservationClosed):
            await ledger.commit(RequestId("r1"), Credits(30), USAGE)

    with ledger_on(database_url) as ledger:
        asyncio.run(run())

    assert balance(database_url).available == 100
