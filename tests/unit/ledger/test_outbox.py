"""Events match the ledger, occur once per change, and stay until they are confirmed."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import count

import pytest
from sqlalchemy import Connection, Engine, text

from serve_app.domain.errors import LedgerUnavailable
from serve_app.domain.model import Caller
from serve_app.domain.units import Credits, Moment, RequestId, Seconds
from serve_app.ledger.accounts import credit_grants, tenant_accounts
from serve_app.ledger.events import outbox
from serve_app.ledger.events.outbox import CHARGED, CREDIT_LOW, Event
from serve_app.ledger.events.queue import EventQueue
from serve_app.ledger.posting.books import Books
from tests.support import postings
from tests.support.ledger import AUDIT, MODEL, NOW, R1, TIMEOUT_S, USAGE, a_reservation
from tests.unit.conftest import POSTGRESQL

_numbers = count()


@pytest.fixture
def queue(database_url: str) -> Iterator[EventQueue]:
    queue = EventQueue(database_url, TIMEOUT_S)
    yield queue
    queue.close()


def charge(connection: Connection, caller: Caller, request_id: str = "r1", at: int = NOW) -> None:
    wanted = replace(a_reservation(caller, 10, request_id), created_at=Moment(at))
    books = Books.open(connection, {caller.tenant}, {wanted.request_id}, events=True)
    books.reserve(wanted)
    books.commit(wanted.request_id, Credits(7), USAGE, Moment(at))
    books.write()


def spend(engine: Engine, caller: Caller, amount: int, *, void: bool = False) -> None:
    wanted = a_reservation(caller, amount, f"request-{next(_numbers)}")
    with engine.begin() as connection:
        books = Books.open(connection, {caller.tenant}, {wanted.request_id}, events=True)
        books.reserve(wanted)
        if void:
            books.void(wanted.request_id, USAGE, NOW)
        books.write()


def top_up(engine: Engine, caller: Caller, amount: int) -> None:
    with engine.begin() as connection:
        credit_grants.grant(connection, caller.tenant, Credits(amount), "test", AUDIT)


def ids(queue: EventQueue) -> list[str]:
    return [event.id for event in queue.waiting(100)]


def test_a_charge_event_equals_the_charge(engine: Engine, acme: Caller, queue: EventQueue) -> None:
    with engine.begin() as connection:
        charge(connection, acme)

    assert queue.waiting(10) == [
        Event(
            id="r1",
            type=CHARGED,
            tenant=acme.tenant,
            at=NOW,
            data={
                "key_id": acme.key_id,
                "model": MODEL,
                "documents": 3,
                "tokens": 90,
                "amount_micro_dollars": 7,
            },
        )
    ]


def test_an_event_exists_only_with_its_charge(
    engine: Engine, acme: Caller, queue: EventQueue
) -> None:
    with engine.connect() as connection, connection.begin() as begun:
        charge(connection, acme)
        begun.rollback()

    assert queue.waiting(10) == []


def test_without_a_sink_there_are_no_events(
    engine: Engine, acme: Caller, queue: EventQueue
) -> None:
    with engine.begin() as connection:
        tenant_accounts.set_alerts(connection, acme.tenant, [Credits(95)], AUDIT)
        postings.reserve(connection, a_reservation(acme, 10))
        postings.commit(connection, R1, Credits(10), USAGE, NOW)

    assert queue.waiting(10) == []
    assert queue.oldest_at() is None


@pytest.mark.parametrize("end", ["reverse", "void"])
def test_reversing_a_charge_withdraws_its_event(
    engine: Engine, acme: Caller, queue: EventQueue, end: str
) -> None:
    with engine.begin() as connection:
        charge(connection, acme, "r1")
        charge(connection, acme, "r2")
    with engine.begin() as connection:
        getattr(postings, end)(connection, R1, USAGE, NOW)

    # A void does not affect a charge.
    assert ids(queue) == (["r2"] if end == "reverse" else ["r1", "r2"])


def test_low_credit_has_one_event_per_threshold_and_top_up(
    engine: Engine, acme: Caller, queue: EventQueue
) -> None:
    with engine.begin() as connection:
        tenant_accounts.set_alerts(connection, acme.tenant, [Credits(50), Credits(20)], AUDIT)

    spend(engine, acme, 50)  # 50 left, which is not below 50
    assert ids(queue) == []
    spend(engine, acme, 1)
    spend(engine, acme, 20)
    spend(engine, acme, 5, void=True)
    assert [event.data["below_micro_dollars"] for event in queue.waiting(10)] == [50]
    spend(engine, acme, 10)
    assert [event.data for event in queue.waiting(10)] == [
        {"below_micro_dollars": 50, "available_micro_dollars": 49},
        {"below_micro_dollars": 20, "available_micro_dollars": 19},
    ]

    top_up(engine, acme, 100)
    spend(engine, acme, 100)  # Crosses both thresholds; only the lower one is reported.
    events = queue.waiting(10)
    assert [event.data["below_micro_dollars"] for event in events] == [50, 20, 20]
    assert len({event.id for event in events}) == 3
    assert {event.type for event in events} == {CREDIT_LOW}
    assert {event.tenant for event in events} == {acme.tenant}


def test_repeated_low_credit_events_have_the_same_id(
    engine: Engine, acme: Caller, queue: EventQueue
) -> None:
    with engine.begin() as connection:
        tenant_accounts.set_alerts(connection, acme.tenant, [Credits(95)], AUDIT)

    ids = []
    for _ in range(3):
        spend(engine, acme, 10, void=True)
        spend(engine, acme, 10, void=True)
        (event,) = queue.waiting(10)
        ids.append(event.id)
        queue.confirm([event.id])

    assert len(set(ids)) == 1


def test_the_oldest_events_come_first_and_excluded_ones_stay(
    engine: Engine, acme: Caller, queue: EventQueue
) -> None:
    with engine.begin() as connection:
        for number in range(4):
            charge(connection, acme, f"r{number}", NOW + number)

    assert [event.id for event in queue.waiting(2)] == ["r0", "r1"]
    assert [event.id for event in queue.waiting(2, without=["r0", "r2"])] == ["r1", "r3"]
    assert queue.oldest_at() == NOW
    queue.confirm(["r0", "r2"])
    assert ids(queue) == ["r1", "r3"]
    assert queue.oldest_at() == NOW + 1
    queue.confirm(["r0", "nobody"])
    queue.confirm([])
    assert ids(queue) == ["r1", "r3"]


def test_confirming_a_withdrawn_event_deletes_no_other(
    engine: Engine, acme: Caller, queue: EventQueue
) -> None:
    """SQLite reuses the number of a deleted row."""
    with engine.begin() as connection:
        charge(connection, acme, "r1")
    sent = ids(queue)
    with engine.begin() as connection:
        postings.reverse(connection, R1, USAGE, NOW)
    with engine.begin() as connection:
        charge(connection, acme, "r2")

    queue.confirm(sent)

    assert ids(queue) == ["r2"]


def test_one_reader_at_a_time_has_the_turn(database_url: str, queue: EventQueue) -> None:
    other = EventQueue(database_url, TIMEOUT_S)
    with queue.turn() as ours:
        with other.turn() as theirs:
            assert (ours, theirs) == (True, False)
        with other.turn() as theirs:
            assert not theirs
    with other.turn() as theirs:
        assert theirs
    with pytest.raises(LedgerUnavailable):
        fail_in_turn(queue)
    with other.turn() as theirs:
        assert theirs
    other.close()


def fail_in_turn(queue: EventQueue) -> None:
    with queue.turn() as ours:
        assert ours
        raise LedgerUnavailable("as a call may")


def test_a_turn_ends_with_its_process(database_url: str, queue: EventQueue) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, database_url], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "ours\n"
        with queue.turn() as ours:
            assert not ours
        process.kill()
        process.wait(10)

    while True:  # PostgreSQL needs a moment to notice.
        with queue.turn() as ours:
            if ours:
                return


HOLDER = """
import sys, threading
from serve_app.ledger.events.queue import EventQueue

with EventQueue(sys.argv[1], 5).turn() as ours:
    print("ours" if ours else "theirs", flush=True)
    threading.Event().wait()
"""


def test_a_turn_does_not_delay_charges(engine: Engine, acme: Caller, queue: EventQueue) -> None:
    with engine.begin() as connection:
        charge(connection, acme, "r1")
    with queue.turn() as ours:
        assert ours
        sent = ids(queue)
        with engine.begin() as connection:
            charge(connection, acme, "r2")
        with engine.begin() as connection:
            postings.reverse(connection, R1, USAGE, NOW)
        queue.confirm(sent)

    assert ids(queue) == ["r2"]


# A file lock is only released by its owner.
@pytest.mark.parametrize("kind", [pytest.param(POSTGRESQL, marks=pytest.mark.slow)])
def test_a_lost_turn_is_detected(engine: Engine, queue: EventQueue) -> None:
    with pytest.raises(LedgerUnavailable):
        lose_turn(engine, queue)

    with queue.turn() as ours:
        assert ours


def lose_turn(engine: Engine, queue: EventQueue) -> None:
    holder = """
        SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        """
    with queue.turn() as ours:
        assert ours
        with engine.begin() as connection:
            connection.execute(text(holder))


def test_an_unreachable_database_is_reported(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("away")
    queue = EventQueue(f"sqlite:///{folder / 'no-tables.db'}", Seconds(1))

    with pytest.raises(LedgerUnavailable, match="no such table"):
        queue.oldest_at()
    with pytest.raises(LedgerUnavailable):
        queue.waiting(1)
    with pytest.raises(LedgerUnavailable):
        queue.confirm(["r1"])
    queue.close()


def test_events_of_one_transaction_keep_the_order_of_the_books(
    engine: Engine, acme: Caller, queue: EventQueue
) -> None:
    expected = [RequestId(f"r{number}") for number in range(9)]
    with engine.begin() as connection:
        books = Books.open(connection, {acme.tenant}, expected, events=True)
        for request_id in expected:
            books.reserve(a_reservation(acme, 1, request_id))
            books.commit(request_id, Credits(1), USAGE, NOW)
        books.write()
        outbox.take_back(connection, expected[:1])

    assert ids(queue) == expected[1:]
