"""Every kind of difference between logs and ledger is found, and nothing else."""

import json
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Engine, Update, delete, update
from sqlalchemy.sql.dml import Delete

from serve_app.domain.model import Caller
from serve_app.domain.units import Credits, KeyId, ModelId, Moment, RequestId, Tokens
from serve_app.ledger.db.engines import reading
from serve_app.ledger.db.tables import charges, reservations, tenants
from serve_app.ledger.money.calendar import MILLISECONDS_PER_DAY as DAY
from serve_app.ledger.money.reservation import Reservation
from serve_app.ledger.reports.log_check import LogLine, check_logs, parse_line
from serve_app.ledger.reports.reconcile import Findings, check_books
from serve_app.ledger.writer.retention import step
from serve_app.ports import Usage
from tests.support import postings
from tests.support.ledger import MODEL, TIMEOUT_S

TODAY = Moment(1_000 * DAY)
NOON = Moment(TODAY + DAY // 2)
NOW = Moment(TODAY + DAY)


def request(engine: Engine, caller: Caller, request_id: str, at: int, *, answer: bool) -> LogLine:
    """Settle a request and return its log line: charged with 200, or voided with 503."""
    wanted = Reservation(
        RequestId(request_id),
        caller.tenant,
        caller.key_id,
        MODEL,
        Credits(5),
        Moment(at - 20),
        Moment(at + 60_000),
    )
    usage = Usage(3, Tokens(90))
    with engine.begin() as connection:
        postings.reserve(connection, wanted)
    with engine.begin() as connection:
        if answer:
            postings.commit(connection, wanted.request_id, Credits(3), usage, Moment(at))
        else:
            postings.void(connection, wanted.request_id, usage, Moment(at))
    line = LogLine(
        wanted.request_id, 200, Moment(at - 30), Moment(at + 2), caller.key_id, MODEL, 3, 90, 3
    )
    return line if answer else replace(line, status=503, tokens=None, amount=None, model=None)


@pytest.fixture
def lines(engine: Engine, acme: Caller) -> list[LogLine]:
    """The log lines of three charges and one failure within the day."""
    made = [request(engine, acme, f"r{n}", NOON + n * 1_000, answer=True) for n in range(3)]
    return [*made, request(engine, acme, "v", NOON, answer=False)]


def url(engine: Engine) -> str:
    return engine.url.render_as_string(hide_password=False)


def books(engine: Engine, now: Moment = NOW) -> Findings:
    with reading(url(engine), TIMEOUT_S) as connection:
        return check_books(connection, TODAY, now)


def logs(engine: Engine, lines: list[LogLine], day: Moment = TODAY) -> Findings:
    with reading(url(engine), TIMEOUT_S) as connection:
        return check_logs(connection, day, lines)


def spoil(engine: Engine, *changes: Update | Delete) -> None:
    with engine.begin() as connection:
        for change in changes:
            assert connection.execute(change).rowcount > 0


def roll_up(engine: Engine, now: int = TODAY + 3 * DAY) -> None:
    with engine.begin() as connection:
        while step(connection, Moment(now), 1, 100):
            pass


def of(table: Any, request_id: str) -> Any:
    column = table.c.request_id if table is charges else table.c.id
    return update(table).where(column == request_id)


@pytest.mark.usefixtures("lines")
def test_consistent_books_have_no_difference(engine: Engine) -> None:
    assert books(engine) == Findings(
        {
            "balances": 1,
            "reservations pending": 0,
            "committed reservations of the day": 3,
            "charges of the day": 3,
        }
    )
    roll_up(engine)
    assert books(engine, Moment(TODAY + 3 * DAY)).differences == []


@pytest.mark.usefixtures("lines")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([update(tenants).values(available=90)], "granted 100, but available 90"),
        ([delete(charges).where(charges.c.request_id == "r1")], "r1: committed for 3, but there"),
        ([of(charges, "r1").values(amount=4)], "request r1: committed for 3, but charged 4"),
        ([of(charges, "r1").values(documents=4)], "request r1: the reservation and the charge"),
        ([of(charges, "r1").values(tokens=4)], "request r1: the reservation and the charge"),
        ([of(charges, "r1").values(model="m")], "request r1: the reservation and the charge"),
        ([of(reservations, "r1").values(state="voided")], "r1: charged 3, but its reservation is"),
        ([of(reservations, "r1").values(state="pending")], "r1: still pending"),
        (
            [delete(reservations).where(reservations.c.id == "r1")],
            "request r1: charged 3, but there is no reservation",
        ),
    ],
)
def test_inconsistent_books_are_reported(
    engine: Engine, changes: list[Update | Delete], message: str
) -> None:
    spoil(engine, *changes)

    assert any(message in each for each in books(engine, Moment(NOON + 130_000)).differences)


def test_a_pending_reservation_is_not_a_difference(engine: Engine, acme: Caller) -> None:
    wanted = Reservation(
        RequestId("r1"), acme.tenant, acme.key_id, MODEL, Credits(5), NOON, Moment(NOON + 1)
    )
    with engine.begin() as connection:
        postings.reserve(connection, wanted)

    assert books(engine, Moment(NOON + 60_001)).differences == []
    assert books(engine, Moment(NOON + 60_002)).differences == [
        "request r1: still pending 60 s after it expired"
    ]


def test_matching_logs_have_no_difference(engine: Engine, lines: list[LogLine]) -> None:
    found = logs(engine, lines)

    assert found.differences == []
    assert found.counts == {
        "lines of the day": 4,
        "answered 200": 3,
        "compared with their charges": 3,
    }
    roll_up(engine)
    assert logs(engine, lines).counts["compared with the day's sums"] == 3
    assert logs(engine, lines).differences == []


def test_a_disconnect_after_the_charge_is_not_a_difference(
    engine: Engine, lines: list[LogLine]
) -> None:
    lines[1] = replace(lines[1], status=499)

    found = logs(engine, lines)

    assert found.differences == []
    assert found.counts["charged, but the client disconnected"] == 1


def test_a_repeat_needs_no_charge_and_stands_for_the_line_of_a_killed_gateway(
    engine: Engine, lines: list[LogLine]
) -> None:
    first = lines[1]
    repeat = replace(
        first, request_id=RequestId("again"), tokens=None, amount=None, repeats=first.request_id
    )

    assert logs(engine, [*lines, repeat]).differences == []
    lines[1] = repeat
    assert logs(engine, lines).differences == []


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        ({"documents": 4}, ["r1: answered 200, documents 4 in the log, 3 in the ledger"]),
        ({"tokens": 91}, ["r1: answered 200, tokens 91 in the log, 90 in the ledger"]),
        (
            {"amount": 4},
            ["r1: answered 200, charge in micro-dollars 4 in the log, 3 in the ledger"],
        ),
        ({"model": ModelId("m")}, ["r1: answered 200, model m in the log, embedded in the ledger"]),
        ({"key_id": KeyId("k")}, ["r1: answered 200, key k in the log, key-of-acme in the ledger"]),
        ({"status": 500}, ["r1: charged 3, but answered 500"]),
        (
            {"amount": None},
            ["r1: answered 200, charge in micro-dollars None in the log, 3 in the ledger"],
        ),
        (
            {"request_id": RequestId("x")},
            [
                "x: answered 200, charge 3 in the log, none in the ledger",
                "r1: charged 3, but not in the logs",
            ],
        ),
        (
            {"request_id": RequestId("r2")},
            ["r2: logged twice", "r1: charged 3, but not in the logs"],
        ),
    ],
)
def test_differing_logs_are_reported(
    engine: Engine, lines: list[LogLine], change: dict[str, Any], messages: list[str]
) -> None:
    lines[1] = replace(lines[1], **change)

    differences = logs(engine, lines).differences

    assert len(differences) == len(messages)
    for each, expected in zip(differences, messages, strict=True):
        assert each.startswith(f"request {expected}")


def test_a_charged_failure_is_reported(engine: Engine, lines: list[LogLine]) -> None:
    lines[1] = replace(lines[1], status=503, tokens=None, amount=None, model=None)

    differences = logs(engine, lines).differences

    assert differences
    assert all("r1: answered 503" in each for each in differences)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"documents": 4}, "documents 10 in the logs, 9 in the day's sum"),
        ({"amount": 2}, "amount 8 in the logs, 9 in the day's sum"),
        ({"tokens": 271}, "tokens 451 in the logs, 360 in the day's sum"),
        ({"model": ModelId("m")}, "key key-of-acme, model m: requests 1 in the logs, 0 in"),
        ({"key_id": KeyId("k")}, "key k, model embedded: requests 1 in the logs, 0 in"),
        ({"status": 500}, "r1: charged 3, but answered 500"),
    ],
)
def test_days_with_only_sums_are_compared(
    engine: Engine, lines: list[LogLine], change: dict[str, Any], message: str
) -> None:
    roll_up(engine)
    lines[1] = replace(lines[1], **change)

    assert any(message in each for each in logs(engine, lines).differences)


def test_a_request_missing_on_either_side_of_a_sum_is_reported(
    engine: Engine, lines: list[LogLine]
) -> None:
    roll_up(engine)

    assert any(
        "requests 2 in the logs, 3 in" in each for each in logs(engine, lines[1:]).differences
    )
    more = [*lines, replace(lines[0], request_id=RequestId("x"))]
    assert any("requests 4 in the logs, 3 in" in each for each in logs(engine, more).differences)


def test_tokens_of_a_day_without_failures_are_compared_exactly(
    engine: Engine, acme: Caller
) -> None:
    """Only a day with failures can have more tokens in its sum than in the logs."""
    line = request(engine, acme, "r1", NOON, answer=True)
    roll_up(engine)

    assert logs(engine, [line]).differences == []
    (difference,) = logs(engine, [replace(line, tokens=Tokens(89))]).differences
    assert "tokens 89 in the logs, 90 in the day's sum" in difference


def test_a_partly_summed_up_day_is_compared_as_a_whole(
    engine: Engine, lines: list[LogLine]
) -> None:
    with engine.begin() as connection:
        connection.execute(delete(reservations))
        while connection.execute(charges.select()).all()[1:]:
            step(connection, Moment(TODAY + 3 * DAY), 1, 1)

    found = logs(engine, lines)

    assert found.differences == []
    assert found.counts["compared with their charges"] == 1
    assert found.counts["compared with the day's sums"] == 2


@pytest.mark.parametrize("summed_up", [False, True])
def test_a_request_at_midnight_is_searched_on_both_days(
    engine: Engine, acme: Caller, summed_up: bool
) -> None:
    """The charge belongs to one day and the log line to the next."""
    line = request(engine, acme, "r1", TODAY - 1, answer=True)
    assert line.begun_at < TODAY <= line.ended_at
    if summed_up:
        roll_up(engine)

    for day in (Moment(TODAY - DAY), TODAY):
        assert logs(engine, [line], day).differences == []
    (difference,) = logs(engine, [], Moment(TODAY - DAY)).differences
    assert "not in the logs" in difference or "requests 0 in the logs, 1 in" in difference


def test_other_days_are_left_alone(engine: Engine, lines: list[LogLine]) -> None:
    assert logs(engine, lines, Moment(TODAY - DAY)).counts["lines of the day"] == 0
    assert logs(engine, [], Moment(TODAY + DAY)).differences == []


FIELDS = {
    "asctime": "1972-09-27 12:00:00,002",
    "message": "rerank_request",
    "event": "rerank_request",
    "id": "r0",
    "status": 200,
    "duration_s": 0.032,
    "key_id": "key-of-acme",
    "documents": 3,
    "model": "embedded",
    "tokens": 90,
    "charge_micro_dollars": 3,
    "timestamp_ns": (NOON + 2) * 1_000_000 + 330,
}


def test_a_log_line_is_parsed_back(lines: list[LogLine]) -> None:
    assert parse_line(json.dumps(FIELDS)) == lines[0]


@pytest.mark.parametrize(
    "line",
    ["", "not json", json.dumps({"message": "rerank_request"}), json.dumps({"event": "other"})],
)
def test_a_line_of_another_event_is_skipped(line: str) -> None:
    assert parse_line(line) is None


@pytest.mark.parametrize(
    "line",
    [
        json.dumps(FIELDS)[:-40],
        json.dumps(FIELDS | {"timestamp_ns": None}),
        json.dumps({name: FIELDS[name] for name in ("event", "id")}),
        json.dumps(["rerank_request"]),
    ],
)
def test_a_broken_line_is_reported(line: str) -> None:
    with pytest.raises(ValueError, match=r"line|Expecting|Unterminated"):
        parse_line(line)
