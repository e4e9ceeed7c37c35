"""The SQL follows the rules, even with concurrent writers."""

import random
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from sqlalchemy import Connection, Engine, delete, select

from serve_app.domain.errors import OutOfCredit, RerankError, ReservationClosed
from serve_app.domain.model import Caller
from serve_app.domain.units import Credits, Moment, RequestId, TenantId
from serve_app.ledger.db.tables import charges, reservations
from serve_app.ledger.money.reservation import Reservation
from serve_app.ledger.posting.sql import lock_accounts
from serve_app.ledger.reports.balances import check_balances
from serve_app.ledger.writer import maintenance
from tests.support import postings
from tests.support.ledger import (
    NOW,
    R1,
    USAGE,
    a_reservation,
    a_tenant,
    balance_in,
)

LATER = Moment(NOW + 60_000)
RACER = """
import sys
from serve_app.domain.errors import OutOfCredit
from tests.support import postings
from serve_app.ledger.db.engines import open_writer, opened
from tests.support.ledger import TIMEOUT_S, a_reservation
from serve_app.domain.model import Caller

url, tenant, key_id, name, tries = sys.argv[1:]
caller = Caller(tenant, key_id, frozenset(), None)
reserved = 0
with opened(open_writer(url, TIMEOUT_S)) as engine:
    for number in range(int(tries)):
        try:
            with engine.begin() as connection:
                postings.reserve(connection, a_reservation(caller, 10, f"{name}-{number}"))
            reserved += 1
        except OutOfCredit:
            pass
print(reserved)
"""


def settle(engine: Engine, action: str, amount: int = 12) -> None:
    with engine.begin() as connection:
        if action == "commit":
            postings.commit(connection, R1, Credits(amount), USAGE, NOW)
        elif action == "void":
            postings.void(connection, R1, USAGE, NOW)
        elif action == "reverse":
            postings.reverse(connection, R1, USAGE, NOW)
        else:
            maintenance.expire_due(connection, LATER, 10)


@pytest.fixture
def reserved(engine: Engine, acme: Caller) -> Engine:
    """A database where r1 reserves 30 of acme's 100."""
    with engine.begin() as connection:
        postings.reserve(connection, a_reservation(acme, 30))
    return engine


@pytest.mark.parametrize(
    ("actions", "available", "charged"),
    [
        pytest.param("", 70, 0, id="a reservation sets credit aside"),
        pytest.param("commit", 88, 12, id="a commit gives the rest back"),
        pytest.param("commit commit", 88, 12, id="a repeated commit charges once"),
        pytest.param("commit void", 88, 12, id="a void cannot undo a commit"),
        pytest.param("commit expire", 88, 12, id="an expiry cannot undo a commit"),
        pytest.param("commit reverse", 100, 0, id="a reversal undoes a commit"),
        pytest.param("commit reverse reverse", 100, 0, id="a repeated reversal undoes it once"),
        pytest.param("void void", 100, 0, id="a repeated void gives back once"),
        pytest.param("void reverse", 100, 0, id="a reversal after a void gives nothing more"),
        pytest.param("expire void", 100, 0, id="a void after the expiry gives nothing more"),
    ],
)
def test_the_first_settlement_wins(
    reserved: Engine, actions: str, available: int, charged: int
) -> None:
    for action in actions.split():
        settle(reserved, action)

    left = balance_in(reserved)
    assert (left.available, left.charged) == (available, charged)


@pytest.mark.parametrize("first", ["void", "expire", "reverse"])
def test_a_commit_after_the_credit_was_released_is_refused(reserved: Engine, first: str) -> None:
    settle(reserved, first)

    with pytest.raises(ReservationClosed):
        settle(reserved, "commit")

    assert balance_in(reserved).available == 100


def test_a_tenant_cannot_reserve_more_than_it_has(reserved: Engine, acme: Caller) -> None:
    with pytest.raises(OutOfCredit) as refused, reserved.begin() as connection:
        postings.reserve(connection, a_reservation(acme, 71, "r2"))

    assert (refused.value.needed, refused.value.available) == (71, 70)
    assert balance_in(reserved).pending == 30


def test_an_unknown_tenant_has_no_credit(engine: Engine, acme: Caller) -> None:
    unknown = replace(acme, tenant=TenantId("tn_nobody"))

    with pytest.raises(OutOfCredit), engine.begin() as connection:
        postings.reserve(connection, a_reservation(unknown, 1))


def test_free_requests_are_reserved_and_charged_like_others(engine: Engine, acme: Caller) -> None:
    with engine.begin() as connection:
        postings.reserve(connection, a_reservation(acme, 0))
        postings.commit(connection, R1, Credits(0), USAGE, NOW)
        charged = connection.execute(select(charges)).one()

    assert (charged.amount, charged.documents, charged.tokens) == (0, 3, 90)


def test_computed_usage_is_recorded_even_if_it_is_not_charged(reserved: Engine) -> None:
    settle(reserved, "void")

    with reserved.begin() as connection:
        row = connection.execute(select(reservations)).one()
        assert connection.execute(select(charges)).all() == []
    assert (row.state, row.documents, row.tokens, row.settled_at) == ("voided", 3, 90, NOW)


@pytest.mark.usefixtures("acme")
def test_settling_an_unknown_reservation_does_nothing(engine: Engine) -> None:
    settle(engine, "void")
    settle(engine, "reverse")
    with pytest.raises(ReservationClosed):
        settle(engine, "commit")

    assert balance_in(engine).available == 100


def test_only_overdue_reservations_expire_and_few_at_a_time(engine: Engine, acme: Caller) -> None:
    with engine.begin() as connection:
        for number in range(5):
            wanted = a_reservation(acme, 10, f"r{number}", expires_at=NOW + number)
            postings.reserve(connection, wanted)

    def expire(now: int) -> int:
        with engine.begin() as connection:
            return maintenance.expire_due(connection, Moment(now), 2)

    assert [expire(NOW - 1), expire(NOW + 2), expire(NOW + 2), expire(NOW + 2)] == [0, 2, 1, 0]
    assert balance_in(engine).pending == 20


@pytest.mark.parametrize("seed", range(6))
def test_no_sequence_of_calls_creates_or_loses_credit(
    engine: Engine, database_url: str, seed: int
) -> None:
    """Random walk over every operation. The seed reproduces a failure."""
    rng = random.Random(seed)
    callers = [a_tenant(database_url, 300, name) for name in ("acme", "bolt")]
    outcomes: Counter[str] = Counter()

    with engine.connect() as connection:
        for step in range(150):
            action = rng.choice(["reserve", "reserve", "commit", "void", "reverse", "expire"])
            try:
                with connection.begin():
                    # Few ids at a time, so that most settlements meet a reservation.
                    request_id = RequestId(f"r{max(0, step // 4 - rng.randrange(3))}")
                    caller, amount = rng.choice(callers), rng.randint(0, 200)
                    wanted = a_reservation(caller, amount, request_id, NOW + step + 40)
                    walk(connection, action, rng, wanted)
                outcomes[action] += 1
            except RerankError as refusal:
                outcomes[type(refusal).__name__] += 1
            with connection.begin():
                assert check_balances(connection) == [], f"step {step}: {action}"

    assert set(outcomes) >= {"reserve", "commit", "OutOfCredit", "ReservationClosed"}


def walk(connection: Connection, action: str, rng: random.Random, wanted: Reservation) -> None:
    request_id = wanted.request_id
    now = Moment(wanted.expires_at - 40)
    match action:
        case "reserve":
            postings.reserve(connection, wanted)
        case "commit":
            amount = rng.randint(0, reserved_amount(connection, request_id))
            postings.commit(connection, request_id, Credits(amount), USAGE, now)
        case "void":
            postings.void(connection, request_id, USAGE, now)
        case "reverse":
            postings.reverse(connection, request_id, USAGE, now)
        case _:
            maintenance.expire_due(connection, now, 10)


def reserved_amount(connection: Connection, request_id: RequestId) -> int:
    query = select(reservations.c.amount).where(reservations.c.id == request_id)
    return int(connection.scalar(query) or 0)


def test_threads_together_reserve_exactly_the_available_credit(
    engine: Engine, acme: Caller
) -> None:
    def attempt(number: int) -> bool:
        try:
            with engine.begin() as connection:
                postings.reserve(connection, a_reservation(acme, 10, f"r{number}"))
        except OutOfCredit:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        outcomes = list(threads.map(attempt, range(40)))

    assert sum(outcomes) == 10
    assert balance_in(engine).available == 0


def test_processes_together_reserve_exactly_the_available_credit(
    engine: Engine, database_url: str, acme: Caller
) -> None:
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, database_url, acme.tenant, acme.key_id, name, "15"],
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("left", "right")
    ]

    reserved = [int(racer.communicate(timeout=180)[0]) for racer in racers]

    assert sum(reserved) == 10
    assert balance_in(engine).available == 0


@pytest.mark.parametrize("rival", ["void", "expire"])
def test_a_race_settles_a_reservation_once(engine: Engine, acme: Caller, rival: str) -> None:
    """Checked in fifty races."""

    def attempt(action: str) -> bool:
        try:
            settle(engine, action, 30)
        except ReservationClosed:
            return False
        return True

    with ThreadPoolExecutor(2) as threads:
        for _ in range(50):
            with engine.begin() as connection:
                postings.reserve(connection, a_reservation(acme, 30))
            other = threads.submit(settle, engine, rival)
            charged = threads.submit(attempt, "commit").result()
            other.result()
            left = balance_in(engine)
            assert (left.pending, left.charged) == (0, 30 if charged else 0)
            with engine.begin() as connection:
                if charged:
                    postings.reverse(connection, R1, USAGE, NOW)
                connection.execute(delete(reservations))


def test_gateways_that_lock_the_same_tenants_do_not_deadlock(
    engine: Engine, database_url: str
) -> None:
    callers = [a_tenant(database_url, 10_000, f"t{number}") for number in range(4)]

    def group(number: int) -> None:
        order = random.Random(number).sample(callers, len(callers))
        with engine.begin() as connection:
            lock_accounts(connection, {caller.tenant for caller in order})
            for caller in order:
                wanted = a_reservation(caller, 1, f"{number}-{caller.key_id}", NOW)
                postings.reserve(connection, wanted)
        with engine.begin() as connection:
            maintenance.expire_due(connection, NOW, 100)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(group, range(12)))

    with engine.begin() as connection:
        assert check_balances(connection) == []
