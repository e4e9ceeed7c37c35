"""Each true event, and no other, reaches a real HTTP sink at least once despite any failure."""

import asyncio
import logging
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, func, select

from serve_app.deployments.local_ray import free_port
from serve_app.domain.clock import SystemClock
from serve_app.domain.model import Caller
from serve_app.domain.units import Credits, Moment, RequestId, Seconds, TenantId
from serve_app.ledger.db.tables import outbox
from serve_app.ledger.events import delivery as delivery_module
from serve_app.ledger.events.delivery import (
    ANSWER_BYTES_MAX,
    ASIDE_S_MAX,
    BATCH_EVENTS_MAX,
    WAIT_S_MAX,
    WAIT_S_MIN,
    Delivery,
    HttpSink,
    SinkFailed,
    SinkRefused,
    cloud_events,
    wait_s,
)
from serve_app.ledger.events.outbox import Event
from serve_app.ledger.events.queue import EventQueue
from serve_app.ledger.posting.books import Books
from serve_app.ledger.sql_ledger import SqlLedger
from tests.support import postings
from tests.support.event_sinks import Sink, listening
from tests.support.fakes import FakeClock, RecordingSink, some_metrics
from tests.support.ledger import (
    LIMITS,
    MARGIN_S,
    NOW,
    TIMEOUT_S,
    USAGE,
    a_quote,
    a_reservation,
    a_tenant,
)

TOKEN = "ttsecrettoken"
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
PATIENCE_S = 30.0
EVENT = Event("r1", "rerank.charged", TenantId("tn_1"), Moment(1_700_000_000_007), {"documents": 3})


@pytest.fixture
def sink() -> Iterator[Sink]:
    with listening() as sink:
        yield sink


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let threads wait for hundredths of a second instead of seconds."""
    for name in ("POLL_S", "WAIT_S_MIN", "WAIT_S_MAX"):
        monkeypatch.setattr(delivery_module, name, 0.02)


@contextmanager
def delivering(
    database_url: str, url: str, recorded: RecordingSink | None = None
) -> Iterator[None]:
    delivery = a_delivery(database_url, url, recorded)
    delivery.start()
    try:
        yield
    finally:
        delivery.close()
        assert not delivery._thread.is_alive()


def a_delivery(
    database_url: str,
    url: str,
    recorded: RecordingSink | None = None,
    clock: FakeClock | None = None,
) -> Delivery:
    queue = EventQueue(database_url, TIMEOUT_S)
    clock_used = SystemClock() if clock is None else clock
    return Delivery(queue, HttpSink(url, TOKEN), some_metrics(recorded), clock_used)


@contextmanager
def by_hand(database_url: str, url: str, clock: FakeClock) -> Iterator[Delivery]:
    """Yield a delivery without a running thread: the test takes the steps."""
    delivery = a_delivery(database_url, url, clock=clock)
    yield delivery
    delivery._stopping.set()
    delivery._run()


def sent_some(delivery: Delivery) -> bool:
    """Take one step; return whether the next one follows immediately, because events were sent."""
    return not delivery._step()


def send_all(delivery: Delivery) -> None:
    while sent_some(delivery):
        pass


def charge(engine: Engine, caller: Caller, *numbers: int) -> list[str]:
    ids = [RequestId(f"r{number}") for number in numbers]
    with engine.begin() as connection:
        books = Books.open(connection, {caller.tenant}, ids, events=True)
        for request_id in ids:
            books.reserve(a_reservation(caller, 1, request_id))
            books.commit(request_id, Credits(1), USAGE, NOW)
        books.write()
    return [*ids]


def reverse(engine: Engine, request_id: str) -> None:
    with engine.begin() as connection:
        postings.reverse(connection, RequestId(request_id), USAGE, NOW)


def waiting(engine: Engine) -> int:
    with engine.connect() as connection:
        return connection.scalar(select(func.count()).select_from(outbox)) or 0


def until(condition: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.01)


@pytest.mark.usefixtures("hurry")
def test_charges_and_low_credit_are_sent_as_cloud_events(
    database_url: str, engine: Engine, sink: Sink
) -> None:
    caller = a_tenant(database_url, 5_000_010)

    async def scenario(ledger: SqlLedger) -> None:
        await ledger.reserve(caller, a_quote(RequestId("req-1"), 24))
        await ledger.commit(RequestId("req-1"), Credits(24), USAGE)

    ledger = SqlLedger(database_url, FakeClock(), MARGIN_S, LIMITS, events=True)
    ledger.start()
    asyncio.run(scenario(ledger))
    ledger.close()
    with delivering(database_url, sink.url):
        until(lambda: waiting(engine) == 0)

    low, charged = (event for batch in sink.batches for event in batch)
    assert charged == {
        "specversion": "1.0",
        "id": "req-1",
        "source": "rerank-serve",
        "type": "rerank.charged",
        "subject": caller.tenant,
        "time": "1970-01-01T00:16:40.000Z",
        "datacontenttype": "application/json",
        "data": {
            "key_id": caller.key_id,
            "model": "embedded",
            "documents": 3,
            "tokens": 90,
            "amount_micro_dollars": 24,
        },
    }
    assert (low["type"], low["subject"]) == ("rerank.credit.low", caller.tenant)
    assert low["data"] == {"below_micro_dollars": 5_000_000, "available_micro_dollars": 4_999_986}
    assert sink.headers[0]["content-type"] == "application/cloudevents-batch+json"
    assert sink.headers[0]["authorization"] == f"Bearer {TOKEN}"


def test_the_time_is_in_utc_to_the_millisecond() -> None:
    (event,) = cloud_events([EVENT])

    assert event["time"] == "2023-11-14T22:13:20.007Z"


@pytest.mark.usefixtures("hurry")
def test_events_during_an_outage_of_the_sink_are_sent_afterwards(
    database_url: str, engine: Engine, acme: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    recorded = RecordingSink()
    with delivering(database_url, f"http://127.0.0.1:{port}/events", recorded):
        expected = charge(engine, acme, *range(5))
        until(lambda: "event_sink_failed" in caplog.text)
        assert waiting(engine) == 5
        ages = recorded.values["rerank_event_age_seconds"]
        until(lambda: ages[-1][0] > 0)

        with listening(port) as sink:
            until(lambda: waiting(engine) == 0)
            until(lambda: ages[-1][0] == 0)

    assert sink.ids == expected


@pytest.mark.usefixtures("hurry")
def test_after_a_lost_response_the_same_event_is_sent_again(
    database_url: str, engine: Engine, acme: Caller, sink: Sink
) -> None:
    sink.status = lambda _: 204 if len(sink.batches) > 2 else 0
    charge(engine, acme, 1)
    with delivering(database_url, sink.url):
        until(lambda: waiting(engine) == 0)

    assert len(sink.batches) == 3
    assert sink.batches[0] == sink.batches[1] == sink.batches[2]


@pytest.mark.usefixtures("hurry")
def test_two_gateways_take_turns_and_lose_no_event(
    database_url: str, engine: Engine, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_module, "BATCH_EVENTS_MAX", 7)
    caller = a_tenant(database_url, 1_000)
    expected = []
    with delivering(database_url, sink.url), delivering(database_url, sink.url):
        for number in range(0, 300, 10):
            expected += charge(engine, caller, *range(number, number + 10))
        until(lambda: waiting(engine) == 0)

    assert Counter(sink.ids) == Counter(expected)


@pytest.mark.usefixtures("hurry")
def test_killing_a_gateway_during_a_call_loses_no_event(
    database_url: str, engine: Engine, acme: Caller, sink: Sink
) -> None:
    expected = charge(engine, acme, *range(20))
    sink.open.clear()
    process = subprocess.Popen([sys.executable, "-c", DELIVERER, database_url, sink.url])
    until(lambda: len(sink.batches) == 1)
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    assert waiting(engine) == 20
    sink.open.set()

    with delivering(database_url, sink.url):
        until(lambda: waiting(engine) == 0)

    assert Counter(sink.ids) == Counter(2 * expected)


DELIVERER = """
import sys, threading
from tests.unit.ledger.test_delivery import a_delivery

a_delivery(*sys.argv[1:]).start()
threading.Event().wait()
"""


def test_a_reversed_charge_is_not_sent(
    database_url: str, engine: Engine, acme: Caller, sink: Sink
) -> None:
    charge(engine, acme, 1, 2)
    reverse(engine, "r1")

    with by_hand(database_url, sink.url, FakeClock()) as delivery:
        assert sent_some(delivery)

    assert sink.ids == ["r2"]


def test_charging_does_not_wait_for_the_sink(
    database_url: str, engine: Engine, acme: Caller, sink: Sink
) -> None:
    charge(engine, acme, 1)
    sink.open.clear()  # The sink has the event and does not answer.
    with by_hand(database_url, sink.url, FakeClock()) as delivery:
        call = threading.Thread(target=delivery._step)
        call.start()
        until(lambda: len(sink.batches) == 1)

        charge(engine, acme, 2)
        reverse(engine, "r1")
        assert call.is_alive()

        sink.open.set()
        call.join()
        assert waiting(engine) == 1
        assert sent_some(delivery)

    # The first event was true when it was sent: the exception in the operations guide.
    assert sink.ids == ["r1", "r2"]


def test_a_refused_event_is_kept_and_does_not_delay_others(
    database_url: str, engine: Engine, acme: Caller, sink: Sink, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    sink.status = lambda batch: 400 if any(event["id"] == "r3" for event in batch) else 204
    charge(engine, acme, *range(6))
    with by_hand(database_url, sink.url, clock) as delivery:
        send_all(delivery)
        assert waiting(engine) == 1
        assert [len(batch) for batch in sink.batches] == [6, 1, 1, 1, 1, 1, 1]

        delays = []
        for _ in range(8):
            sent = len(sink.batches)
            started = clock.now_s
            while len(sink.batches) == sent:
                clock.advance(5)
                delivery._step()
            delays.append(clock.now_s - started)
        assert delays[0] < 40
        assert ASIDE_S_MAX / 2 < max(delays) <= ASIDE_S_MAX + 5

        sink.status = lambda _: 202  # The sink accepts the event now.
        clock.advance(ASIDE_S_MAX)
        assert sent_some(delivery)
        assert waiting(engine) == 0
        assert delivery._aside == {}

    refusals = [record for record in caplog.records if record.message == "event_refused"]
    assert {record.__dict__["event"] for record in refusals} == {"r3"}
    assert {record.levelno for record in refusals} == {logging.ERROR}


def test_a_sink_that_refuses_everything_is_not_sent_all_events(
    database_url: str,
    engine: Engine,
    acme: Caller,
    sink: Sink,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(delivery_module, "BATCH_EVENTS_MAX", 4)
    monkeypatch.setattr(delivery_module, "ASIDE_EVENTS_MAX", 6)
    clock = FakeClock()
    sink.status = lambda _: 422
    expected = charge(engine, acme, *range(30))
    with by_hand(database_url, sink.url, clock) as delivery:
        send_all(delivery)
        assert len(delivery._aside) == 8
        assert waiting(engine) == 30

        sink.status = lambda _: 204
        sink.batches.clear()
        clock.advance(ASIDE_S_MAX)
        send_all(delivery)
    assert sorted(sink.ids) == sorted(expected)
    assert waiting(engine) == 0


def test_an_event_set_aside_and_sent_by_another_gateway_is_forgotten(
    database_url: str, engine: Engine, acme: Caller, sink: Sink
) -> None:
    clock = FakeClock()
    sink.status = lambda _: 400
    charge(engine, acme, 1)
    with by_hand(database_url, sink.url, clock) as delivery:
        delivery._step()
        assert set(delivery._aside) == {"r1"}
        sink.status = lambda _: 204
        with by_hand(database_url, sink.url, clock) as other:
            other._step()
        assert waiting(engine) == 0
        charge(engine, acme, 2)
        clock.advance(ASIDE_S_MAX)
        delivery._step()
        assert delivery._aside == {}


def send(url: str, token: str = TOKEN, times: int = 1) -> None:
    with closing(HttpSink(url, token)) as http_sink:
        for _ in range(times):
            http_sink.send([EVENT])


@pytest.mark.parametrize("status", [200, 202, 204])
def test_any_success_status_counts(sink: Sink, status: int) -> None:
    sink.status = lambda _: status

    send(sink.url, token="")

    assert "authorization" not in sink.headers[0]


@pytest.mark.parametrize("status", [400, 413, 422])
def test_some_statuses_refuse_the_events(sink: Sink, status: int) -> None:
    sink.status = lambda _: status

    with pytest.raises(SinkRefused, match=str(status)):
        send(sink.url)


@pytest.mark.parametrize("status", [0, 301, 401, 403, 404, 408, 429, 500, 503])
def test_all_other_statuses_mean_a_failing_sink(sink: Sink, status: int) -> None:
    sink.status = lambda _: status

    with pytest.raises(SinkFailed):
        send(sink.url)


def test_a_long_answer_is_not_read_to_its_end(sink: Sink) -> None:
    sink.status = lambda _: 200
    sink.body = bytes(1_000 * ANSWER_BYTES_MAX)

    send(sink.url, times=2)

    assert sink.ids == ["r1", "r1"]
    assert sink.bytes_sent < len(sink.body)


@pytest.mark.usefixtures("hurry")
@pytest.mark.parametrize("status", [204, 400, 401, 0])
def test_the_token_is_in_no_log(
    database_url: str,
    engine: Engine,
    acme: Caller,
    sink: Sink,
    caplog: pytest.LogCaptureFixture,
    status: int,
) -> None:
    caplog.set_level(logging.DEBUG)
    sink.status = lambda _: status
    charge(engine, acme, 1)
    with delivering(database_url, sink.url):
        until(lambda: len(sink.batches) > 1 or waiting(engine) == 0 or "refused" in caplog.text)

    assert any(record.name.startswith("httpcore") for record in caplog.records)
    logged = "".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)
    assert TOKEN not in logged


@unhurried
@given(
    attempts=st.integers(1, 10**6),
    chance=st.floats(0, 1),
    most=st.floats(1, 3_600),
)
def test_pauses_grow_to_their_limit(attempts: int, chance: float, most: float) -> None:
    least_s, most_s = Seconds(1.0), Seconds(most)
    waited = wait_s(attempts, least_s, most_s, chance)

    assert 0.5 <= waited <= most_s
    assert waited <= wait_s(attempts + 1, least_s, most_s, chance)


def test_pauses_double_with_jitter() -> None:
    waits: list[float] = [wait_s(attempts, WAIT_S_MIN, WAIT_S_MAX, 0.0) for attempts in range(1, 9)]

    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    assert wait_s(8, WAIT_S_MIN, WAIT_S_MAX, 1.0) == Seconds(30.0)


def test_a_batch_is_bounded(database_url: str, engine: Engine, sink: Sink) -> None:
    caller = a_tenant(database_url, 1_000)
    expected = charge(engine, caller, *range(BATCH_EVENTS_MAX + 1))
    with by_hand(database_url, sink.url, FakeClock()) as delivery:
        send_all(delivery)

    assert [len(batch) for batch in sink.batches] == [BATCH_EVENTS_MAX, 1]
    assert sink.ids == expected
