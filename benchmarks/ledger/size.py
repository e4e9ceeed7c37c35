"""Does the ledger stay fast when it is large? Times and query plans of reports at 10 million rows.

    python -m benchmarks.ledger.size --json benchmarks/results/ledger-size.json

It fills SQLite and PostgreSQL with charges of 400 days and 1,000 tenants, most of them of a few
tenants. It measures the service's reports for the largest and the median tenant, rolls up charges
older than 90 days as a gateway does, and measures again. Rows are written in bulk, and indexes are
built afterwards, so the tables are less fragmented than after years of single writes. Each report
runs three times; the first time (after another report) and the best are kept. Needs 10 GB of disk.
"""

import argparse
import json
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from rich.progress import track
from sqlalchemy import Connection, event, func, insert, select, text

from benchmarks.machine import Machine, machine
from serve_app.domain.units import Moment, Seconds, TenantId
from serve_app.ledger.accounts.tenant_accounts import find_tenant
from serve_app.ledger.db.engines import open_writer, opened, reading, transaction
from serve_app.ledger.db.schema import migrate
from serve_app.ledger.db.tables import api_keys, charges, grants, tenants, usage_days
from serve_app.ledger.money.calendar import MILLISECONDS_PER_DAY, bounds_of, day_of, month_of
from serve_app.ledger.reports.balances import balances, check_balances
from serve_app.ledger.reports.monthly_statement import render_html, statement
from serve_app.ledger.reports.usage import Grouping, UsageFilter, usage
from serve_app.ledger.writer.limits import LedgerLimits
from serve_app.ledger.writer.retention import step
from testkit.postgres import Postgres, running

ROWS = 10_000_000
TENANTS, KEYS_PER_TENANT, DAYS = 1_000, 2, 400
MODELS = ("embedded", "cross-encoder/ms-marco-MiniLM-L12-v2")
BEGIN = Moment(1_767_225_600_000)  # 2026-01-01
NOW = Moment(BEGIN + DAYS * MILLISECONDS_PER_DAY + 3_600_000)
PRICE, TOKENS_PER_DOCUMENT, DOCUMENTS_MAX = 8, 67, 100
TIMEOUT_S = Seconds(1_800)
CHUNK = 100_000
REPEATS = 3
STEPS, LARGE_STEP_ROWS = 400, 20_000
LIMITS = LedgerLimits()
COLUMNS = tuple(charges.c.keys())
SECONDARY = {index.name: index for index in charges.indexes}


@dataclass(slots=True)
class Report:
    """The times and the query plan of one report."""

    name: str
    first_ms: float
    best_ms: float
    plan: list[str]


@dataclass(slots=True)
class State:
    """The size of the ledger at one point, and its reports."""

    charges: int
    days: int
    bytes: int
    reports: list[Report]


@dataclass(slots=True)
class RollUp:
    """A roll-up of charges older than 90 days, in steps of one size."""

    rows_per_step: int
    steps: int
    rows: int
    rows_per_s: float
    step_p50_ms: float
    step_p99_ms: float


@dataclass(slots=True)
class Database:
    """The measurements on one database."""

    kind: str
    version: str
    fill_s: float
    before: State
    roll_ups: list[RollUp]
    after: State


@dataclass(slots=True)
class Result:
    """The result of the benchmark."""

    question: str
    date: str
    machine: Machine
    rows: int
    databases: list[Database] = field(default_factory=list)


class Rows:
    """Generated charges, ordered by time; the same number always gives the same charges."""

    def __init__(self, number: int) -> None:
        self.number = number
        chance = np.random.default_rng(20_260_101)
        self.ids = chance.integers(0, 2**63, number, dtype=np.int64)
        # Squared: the largest tenant has 3 % of the requests, and half of all tenants have few.
        self.tenants = (TENANTS * chance.random(number) ** 2).astype(np.int32)
        self.keys = chance.integers(0, KEYS_PER_TENANT, number, dtype=np.int8)
        self.models = chance.integers(0, len(MODELS), number, dtype=np.int8)
        self.documents = chance.integers(1, DOCUMENTS_MAX + 1, number, dtype=np.int32)
        span = DAYS * MILLISECONDS_PER_DAY
        self.times = BEGIN + np.arange(number, dtype=np.int64) * span // number

    def charged(self) -> list[int]:
        sums = np.bincount(self.tenants, self.documents.astype(np.float64) * PRICE, TENANTS)
        return [int(each) for each in sums]

    def chunks(self, order: np.ndarray[Any, Any] | None = None) -> Iterator[list[tuple[Any, ...]]]:
        """Yield rows of `charges`, ordered by time or by ``order``."""
        for begin in track(range(0, self.number, CHUNK), description="rows"):
            which: Any = (
                slice(begin, begin + CHUNK) if order is None else order[begin : begin + CHUNK]
            )
            yield [
                (
                    f"rr_{request:032x}",
                    f"tn_{tenant:04d}",
                    f"k{tenant:04d}{key}",
                    MODELS[model],
                    documents,
                    documents * TOKENS_PER_DOCUMENT,
                    documents * PRICE,
                    at,
                    MODELS[model],
                )
                for request, tenant, key, model, documents, at in zip(
                    *(
                        column[which].tolist()
                        for column in (
                            self.ids,
                            self.tenants,
                            self.keys,
                            self.models,
                            self.documents,
                            self.times,
                        )
                    ),
                    strict=True,
                )
            ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), action="append")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    arguments = parser.parse_args()
    result = measure(arguments.rows, arguments.database or ["sqlite", "postgresql"])
    if arguments.json:
        arguments.json.write_text(json.dumps(asdict(result), indent=2) + "\n", encoding="utf-8")


def measure(rows: int, kinds: list[str]) -> Result:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    result = Result("Does the ledger stay fast when it is large?", now, machine(), rows)
    for kind in kinds:
        with _empty(kind) as (url, server):
            migrate(url)
            measured = _measure(url, server, Rows(rows))
        result.databases.append(measured)
        _print(measured)
    return result


@contextmanager
def _empty(kind: str) -> Iterator[tuple[str, Postgres | None]]:
    if kind == "sqlite":
        with tempfile.TemporaryDirectory(prefix="rerank-ledger-") as folder:
            yield f"sqlite:///{folder}/rerank.db", None
        return
    with running(durable=True) as server:
        yield server.url(), server


def _measure(url: str, server: Postgres | None, rows: Rows) -> Database:
    started = time.monotonic()
    _fill_accounts(url, rows)
    if server is None:
        version = f"SQLite {sqlite3.sqlite_version}"
        _fill_sqlite(url.removeprefix("sqlite:///"), rows)
    else:
        version = _fill_postgresql(server, rows)
    fill_s = time.monotonic() - started
    _settle(url)
    before = _state(url)
    rolled = [
        _roll_up(url, LIMITS.retired_per_transaction_max, max(1, min(STEPS, rows.number // 5_000))),
        _roll_up(url, LARGE_STEP_ROWS, rows.number),
    ]
    _settle(url)
    kind = "sqlite" if server is None else "postgresql"
    return Database(kind, version, fill_s, before, rolled, _state(url))


def _fill_accounts(url: str, rows: Rows) -> None:
    charged = rows.charged()
    left = 1_000_000
    with transaction(url, TIMEOUT_S) as connection:
        for number in range(TENANTS):
            tenant = f"tn_{number:04d}"
            account = {"id": tenant, "name": f"tenant {number}", "available": left}
            connection.execute(insert(tenants), account | {"created_at": BEGIN})
            for key in range(KEYS_PER_TENANT):
                known = {"id": f"k{number:04d}{key}", "tenant_id": tenant, "label": "key"}
                secret = {"secret_sha256": bytes(32), "scopes": ["rerank"], "created_at": BEGIN}
                connection.execute(insert(api_keys), known | secret)
            grant = {"id": f"gr_{number}", "tenant_id": tenant, "amount": charged[number] + left}
            reason = {"reason": "first", "granted_by": "benchmark", "created_at": BEGIN}
            connection.execute(insert(grants), grant | reason)


def _fill_sqlite(path: str, rows: Rows) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA cache_size = -500000")
        connection.execute("PRAGMA synchronous = OFF")
        indexes = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE tbl_name = 'charges' AND type = 'index'"
            " AND sql IS NOT NULL"
        ).fetchall()
        for name, _ in indexes:
            connection.execute(f"DROP INDEX {name}")
        marks = ", ".join("?" * len(COLUMNS))
        into = f"INSERT INTO charges ({', '.join(COLUMNS)}) VALUES ({marks})"  # noqa: S608 - constant names
        # The table is a B-tree by id. Filled in that order, it is as compact as a copy.
        for chunk in rows.chunks(np.argsort(rows.ids)):
            connection.execute("BEGIN")
            connection.executemany(into, chunk)
            connection.execute("COMMIT")
        for _, definition in indexes:
            connection.execute(definition)


def _fill_postgresql(server: Postgres, rows: Rows) -> str:
    dsn = server.url().replace("+psycopg", "")
    with psycopg.connect(dsn, autocommit=True) as connection:
        (version,) = connection.execute("SHOW server_version").fetchone() or ("",)
        indexes = connection.execute(
            "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'charges'"
            " AND indexname <> 'charges_pkey'"
        ).fetchall()
        for name, _ in indexes:
            connection.execute(f"DROP INDEX {name}".encode())
        connection.execute("ALTER TABLE charges DROP CONSTRAINT charges_pkey")
        connection.execute("SET session_replication_role = replica")  # No foreign key checks.
        connection.execute("SET maintenance_work_mem = '512MB'")
        with connection.cursor() as cursor:
            for chunk in rows.chunks():
                with cursor.copy(
                    f"COPY charges ({', '.join(COLUMNS)}) FROM STDIN".encode()
                ) as copy:
                    for row in chunk:
                        copy.write_row(row)
        connection.execute("ALTER TABLE charges ADD PRIMARY KEY (request_id)")
        for _, definition in indexes:
            connection.execute(definition.encode())
    return f"PostgreSQL {version}"


def _settle(url: str) -> None:
    """Do the work of PostgreSQL's autovacuum now. SQLite needs nothing."""
    with opened(open_writer(url, TIMEOUT_S)) as engine:
        if engine.dialect.name == "postgresql":
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.execute(text("VACUUM ANALYZE"))


def _state(url: str) -> State:
    with reading(url, TIMEOUT_S) as connection:
        rows, days = (
            connection.scalar(select(func.count()).select_from(table)) or 0
            for table in (charges, usage_days)
        )
        size = (
            "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
            if connection.dialect.name == "sqlite"
            else "SELECT pg_database_size(current_database())"
        )
        size_bytes = connection.scalar(text(size))
    return State(rows, days, size_bytes, [_report(url, *each) for each in _reports()])


def _reports() -> list[tuple[str, Callable[[Connection], object]]]:
    # The last whole month, and the last whole day.
    recent = month_of(Moment(BEGIN + (DAYS - 35) * MILLISECONDS_PER_DAY))
    since, until = bounds_of(recent)
    last_day = Moment(day_of(NOW) - MILLISECONDS_PER_DAY)

    def of_month(tenant: TenantId) -> Callable[[Connection], object]:
        which = UsageFilter(tenant, since, until)
        return lambda connection: usage(connection, which, Grouping.DAY)

    def of_day(tenant: TenantId) -> Callable[[Connection], object]:
        which = UsageFilter(tenant, last_day)
        return lambda connection: usage(connection, which, Grouping.MODEL)

    def bill(tenant: TenantId) -> Callable[[Connection], object]:
        def make(connection: Connection) -> object:
            return render_html(statement(connection, find_tenant(connection, tenant), recent, NOW))

        return make

    made: list[tuple[str, Callable[[Connection], object]]] = []
    for who, tenant in (("largest", TenantId("tn_0000")), ("middle", TenantId("tn_0500"))):
        made += [
            (f"{who} tenant: a month by day", of_month(tenant)),
            (f"{who} tenant: the last day", of_day(tenant)),
            (f"{who} tenant: balance", partial(balances, tenant=tenant)),
            (f"{who} tenant: statement", bill(tenant)),
        ]
    return [*made, ("all tenants: balance check", _check_balances)]


def _check_balances(connection: Connection) -> None:
    assert check_balances(connection) == [], "the books do not balance"


def _report(url: str, name: str, make: Callable[[Connection], object]) -> Report:
    taken_ms = []
    for _ in range(REPEATS):
        with reading(url, TIMEOUT_S) as connection:
            connection.scalar(select(tenants.c.id).limit(1))
            started = time.perf_counter()
            make(connection)
            taken_ms.append((time.perf_counter() - started) * 1_000)
    return Report(name, round(taken_ms[0], 1), round(min(taken_ms), 1), _plan(url, make))


def _plan(url: str, make: Callable[[Connection], object]) -> list[str]:
    """Return the database's query plan for each statement of a report."""
    asked: list[tuple[str, Any]] = []

    def remember(*call: Any) -> None:
        asked.append((call[2], call[3]))

    with reading(url, TIMEOUT_S) as connection:
        event.listen(connection, "before_cursor_execute", remember)
        make(connection)
        event.remove(connection, "before_cursor_execute", remember)
        on_sqlite = connection.dialect.name == "sqlite"
        explain = "EXPLAIN QUERY PLAN" if on_sqlite else "EXPLAIN (COSTS OFF)"
        return [
            str(row[-1])
            for statement_text, parameters in asked
            for row in connection.exec_driver_sql(f"{explain} {statement_text}", parameters)
        ]


def _roll_up(url: str, count_max: int, steps_max: int) -> RollUp:
    taken_ms: list[float] = []
    rows = 0
    with opened(open_writer(url, TIMEOUT_S)) as engine:
        while len(taken_ms) < steps_max:
            started = time.perf_counter()
            with engine.begin() as connection:
                count = step(connection, NOW, LIMITS.charges_kept_days, count_max)
            if not count:
                break
            taken_ms.append((time.perf_counter() - started) * 1_000)
            rows += count
    return RollUp(
        rows_per_step=count_max,
        steps=len(taken_ms),
        rows=rows,
        rows_per_s=round(rows / sum(taken_ms) * 1_000),
        step_p50_ms=round(statistics.median(taken_ms), 1),
        step_p99_ms=round(sorted(taken_ms)[int(len(taken_ms) * 0.99)], 1),
    )


def _print(measured: Database) -> None:
    print(f"{measured.version}: filled in {measured.fill_s:.0f} s")
    for before, after in zip(measured.before.reports, measured.after.reports, strict=True):
        print(f"  {before.name:35} {before.first_ms:>10,.1f} {before.best_ms:>10,.1f} ms", end="")
        print(f"  then {after.first_ms:>10,.1f} {after.best_ms:>10,.1f} ms")
    for when, state in (("before", measured.before), ("after", measured.after)):
        print(
            f"  {when}: {state.charges:,} charges, {state.days:,} days, {state.bytes / 1e9:.2f} GB"
        )
    print(*measured.roll_ups, sep="\n")


if __name__ == "__main__":
    main()
