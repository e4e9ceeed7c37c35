"""Usage reports: sums per group, in pages, from rows and from daily sums."""

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, text

from serve_app.domain.units import KeyId, ModelId, Moment, Tokens
from serve_app.domain.usage import rounded_latency_ms
from serve_app.ledger.accounts import tenant_accounts
from serve_app.ledger.reports.usage import Grouping, UsageFilter, UsageRow, usage
from serve_app.ledger.writer import retention
from serve_app.ports import Usage
from tests.support import postings
from tests.support.ledger import MODEL, NOW, R1, USAGE, a_reservation, a_tenant

DAY_MS = 86_400_000
DAY_0, DAY_1 = "0", str(DAY_MS)

Row = tuple[int, int, int, int, int, int]


def of(*group: str, sums: Row, latencies_ms: tuple[int | None, int | None]) -> UsageRow:
    return UsageRow(*sums, group, *latencies_ms)


@pytest.fixture
def busy(engine: Engine, database_url: str) -> Engine:
    """acme: charged 30 on day 0, after 5 ms, and 20 on day 1, after 1,000 ms; one void on day 1.
    bolt: charged 5 on day 1, after 10 ms."""
    acme, bolt = (a_tenant(database_url, 100, name) for name in ("acme", "bolt"))
    with engine.begin() as connection:
        for caller, amount, request_id, day, latency_ms in (
            (acme, 30, "r1", 0, 5),
            (acme, 20, "r2", 1, 1_000),
            (acme, 10, "r3", 1, 7),
            (acme, 10, "still pending", 1, 7),
            (bolt, 5, "r4", 1, 10),
        ):
            at = Moment(day * DAY_MS + 7)
            wanted = replace(
                a_reservation(caller, amount, request_id), created_at=Moment(at - latency_ms)
            )
            postings.reserve(connection, wanted)
            if request_id == "r3":
                postings.void(connection, wanted.request_id, Usage(1, Tokens(9)), at)
            elif request_id != "still pending":
                postings.commit(connection, wanted.request_id, wanted.amount, USAGE, at)
    return engine


def retire(engine: Engine, before_day: int) -> None:
    """Replace the requests settled before a day by daily sums."""
    last = 1
    while last:
        with engine.begin() as connection:
            last = retention.step(connection, Moment((before_day + 1) * DAY_MS), 1, 10)


@pytest.fixture(params=[0, 1, 2], ids=["rows", "day 0 summed up", "both days summed up"])
def report(busy: Engine, request: pytest.FixtureRequest) -> Engine:
    """The same requests, as rows or as daily sums."""
    retire(busy, request.param)
    with busy.begin() as connection:
        rows = connection.scalar(text("SELECT count(*) FROM charges"))
    assert rows == {0: 3, 1: 2, 2: 0}[request.param]
    return busy


@pytest.mark.parametrize(
    ("by", "rows"),
    [
        (
            Grouping.DAY,
            [
                of(DAY_0, sums=(1, 0, 3, 0, 90, 30), latencies_ms=(5, 5)),
                of(DAY_1, sums=(3, 1, 7, 1, 189, 25), latencies_ms=(10, 1_000)),
            ],
        ),
        (Grouping.MODEL, [of(MODEL, sums=(4, 1, 10, 1, 279, 55), latencies_ms=(10, 1_000))]),
        (
            Grouping.KEY,
            [
                of("key-of-acme", sums=(3, 1, 7, 1, 189, 50), latencies_ms=(5, 1_000)),
                of("key-of-bolt", sums=(1, 0, 3, 0, 90, 5), latencies_ms=(10, 10)),
            ],
        ),
    ],
)
def test_usage_sums_up_what_was_charged_and_what_was_not(
    report: Engine, by: Grouping, rows: list[UsageRow]
) -> None:
    with report.begin() as connection:
        assert usage(connection, UsageFilter(), by) == rows


def test_usage_is_reported_per_tenant(report: Engine) -> None:
    with report.begin() as connection:
        ids = {each.id: each.name for each in tenant_accounts.list_tenants(connection)}
        found = usage(connection, UsageFilter(), Grouping.TENANT)

    assert {(ids[row.group[0]], row.requests, row.charged) for row in found} == {  # type: ignore[index]  # every group has one
        ("acme", 3, 50),
        ("bolt", 1, 5),
    }


def test_a_row_can_combine_several_groupings(report: Engine) -> None:
    with report.begin() as connection:
        found = usage(connection, UsageFilter(), Grouping.DAY, Grouping.KEY, Grouping.MODEL)

    assert found == [
        of(DAY_0, "key-of-acme", MODEL, sums=(1, 0, 3, 0, 90, 30), latencies_ms=(5, 5)),
        of(DAY_1, "key-of-acme", MODEL, sums=(2, 1, 4, 1, 99, 20), latencies_ms=(1_000, 1_000)),
        of(DAY_1, "key-of-bolt", MODEL, sums=(1, 0, 3, 0, 90, 5), latencies_ms=(10, 10)),
    ]


def test_a_report_without_a_grouping_is_one_row(report: Engine) -> None:
    with report.begin() as connection:
        (whole,) = usage(connection, UsageFilter())
        nothing = usage(connection, UsageFilter(since=Moment(9 * DAY_MS)))

    assert whole == of(sums=(4, 1, 10, 1, 279, 55), latencies_ms=(10, 1_000))
    assert nothing == []


def test_a_report_can_select_a_model_and_a_key(report: Engine) -> None:
    key = KeyId("key-of-acme")
    with report.begin() as connection:
        of_key = usage(connection, UsageFilter(model=MODEL, key=key), Grouping.DAY)
        of_day = usage(connection, UsageFilter(since=Moment(DAY_MS), key=key), Grouping.MODEL)
        of_model = usage(connection, UsageFilter(model=ModelId("another")), Grouping.DAY)

    assert of_key == [
        of(DAY_0, sums=(1, 0, 3, 0, 90, 30), latencies_ms=(5, 5)),
        of(DAY_1, sums=(2, 1, 4, 1, 99, 20), latencies_ms=(1_000, 1_000)),
    ]
    assert of_day == [of(MODEL, sums=(2, 1, 4, 1, 99, 20), latencies_ms=(1_000, 1_000))]
    assert of_model == []


def test_charges_without_a_latency_count_in_the_sums_only(busy: Engine) -> None:
    with busy.begin() as connection:
        connection.execute(text("UPDATE charges SET latency_ms = NULL WHERE request_id = 'r2'"))
    retire(busy, 2)
    with busy.begin() as connection:
        days = usage(connection, UsageFilter(), Grouping.DAY)
        connection.execute(text("DELETE FROM latency_days"))
        (whole,) = usage(connection, UsageFilter())

    assert days[1] == of(DAY_1, sums=(3, 1, 7, 1, 189, 25), latencies_ms=(10, 10))
    assert whole == of(sums=(4, 1, 10, 1, 279, 55), latencies_ms=(None, None))


def test_percentiles_are_those_of_all_requests(database_url: str, engine: Engine) -> None:
    """One request each took 1 ms, 2 ms and so on to 100 ms."""
    caller = a_tenant(database_url, 100)
    with engine.begin() as connection:
        for latency_ms in range(1, 101):
            wanted = a_reservation(caller, 1, f"r{latency_ms}")
            postings.reserve(connection, wanted)
            at = Moment(wanted.created_at + latency_ms)
            postings.commit(connection, wanted.request_id, wanted.amount, USAGE, at)
        (row,) = usage(connection, UsageFilter(), Grouping.DAY)

    assert (row.latency_ms_p50, row.latency_ms_p95) == (50, 100)


def test_a_rounded_latency_is_close() -> None:
    for latency_ms in (*range(1, 1_000), 12_345, 600_000, 10**9):
        rounded = rounded_latency_ms(latency_ms)

        assert abs(rounded - latency_ms) <= max(1, 0.07 * latency_ms)
        assert rounded_latency_ms(rounded) == rounded


def test_a_clock_that_was_set_back_gives_no_negative_latency() -> None:
    assert rounded_latency_ms(-5) == 0


@pytest.mark.parametrize(
    "by",
    [
        (Grouping.DAY, Grouping.KEY),
        (Grouping.KEY, Grouping.DAY),
        (Grouping.MODEL, Grouping.DAY, Grouping.KEY),
        (Grouping.TENANT,),
    ],
    ids=",".join,
)
def test_all_pages_together_are_the_whole_report(report: Engine, by: tuple[Grouping, ...]) -> None:
    pages: list[UsageRow] = []
    with report.begin() as connection:
        whole = usage(connection, UsageFilter(), *by)
        after = None
        while page := usage(connection, UsageFilter(), *by, after=after, count_max=1):
            pages += page
            after = page[-1].group

    assert len(whole) > 1
    assert pages == whole


@pytest.mark.parametrize(
    ("since", "until", "requests"),
    [(None, None, 4), (8, None, 3), (7, None, 4), (None, 7, 0), (None, 8, 1), (8, DAY_MS, 0)],
)
def test_usage_includes_since_and_excludes_until(
    busy: Engine, since: int | None, until: int | None, requests: int
) -> None:
    which = UsageFilter(
        since=None if since is None else Moment(since),
        until=None if until is None else Moment(until),
    )
    with busy.begin() as connection:
        found = usage(connection, which, Grouping.MODEL)

    assert sum(row.requests for row in found) == requests


@pytest.mark.parametrize(
    ("since", "until", "requests"), [(0, 1, 1), (1, DAY_MS, 0), (1, None, 3), (None, DAY_MS, 1)]
)
def test_a_summed_up_day_counts_as_a_whole_or_not_at_all(
    busy: Engine, since: int | None, until: int | None, requests: int
) -> None:
    retire(busy, 1)
    which = UsageFilter(
        since=None if since is None else Moment(since),
        until=None if until is None else Moment(until),
    )
    with busy.begin() as connection:
        found = usage(connection, which, Grouping.MODEL)

    assert sum(row.requests for row in found) == requests


def test_the_usage_of_one_tenant_excludes_others(report: Engine) -> None:
    with report.begin() as connection:
        bolt = tenant_accounts.find_tenant(connection, "bolt")
        (row,) = usage(connection, UsageFilter(bolt.id), Grouping.TENANT)

    assert (row.group, row.charged) == ((bolt.id,), 5)


def test_a_reversed_charge_is_uncharged_usage(busy: Engine) -> None:
    with busy.begin() as connection:
        postings.reverse(connection, R1, USAGE, NOW)
        (row,) = usage(connection, UsageFilter(), Grouping.MODEL)

    assert (row.requests, row.requests_not_charged, row.charged) == (4, 2, 25)


def plan_of(connection: Connection, which: UsageFilter) -> str:
    """Return the query plan of a report by day."""
    asked: list[tuple[str, Any]] = []

    def keep(
        _connection: object, _cursor: object, statement: str, parameters: Any, *_: Any
    ) -> None:
        asked.append((statement, parameters))

    event.listen(connection, "before_cursor_execute", keep)
    usage(connection, which, Grouping.DAY)
    event.remove(connection, "before_cursor_execute", keep)
    ((statement, parameters),) = asked
    is_sqlite = connection.dialect.name == "sqlite"
    explain = "EXPLAIN QUERY PLAN" if is_sqlite else "EXPLAIN"
    rows = connection.exec_driver_sql(f"{explain} {statement}", parameters)
    return "\n".join(str(row[-1]) for row in rows)


TENANT_INDEXES = ("charges_by_tenant_and_time", "reservations_not_charged_by_tenant")
TIME_INDEXES = ("charges_by_time", "reservations_settled_by_time")


@pytest.mark.parametrize("indexes", [TENANT_INDEXES, TIME_INDEXES])
def test_a_report_of_a_tenant_or_period_scans_no_whole_table(
    busy: Engine, indexes: tuple[str, ...]
) -> None:
    with busy.begin() as connection:
        acme = tenant_accounts.find_tenant(connection, "acme").id
        tenant = acme if indexes is TENANT_INDEXES else None
        if connection.dialect.name == "postgresql":
            # On tables of four rows, the planner prefers full scans and any index.
            connection.execute(text("SET LOCAL enable_seqscan = off"))
            indexes = ("Index Cond",)
        plan = plan_of(connection, UsageFilter(tenant, Moment(DAY_MS), Moment(2 * DAY_MS)))

    assert "Seq Scan" not in plan
    for index in indexes:
        assert index in plan
