"""How many requests per second can the ledger account for, and how long does a request wait for it?

    python -m benchmarks.ledger.throughput --json benchmarks/results/ledger.json

A request is one reservation and one charge, both durable. `concurrency` callers of eight tenants
send requests concurrently. *Group commit* is the service's method: one writer per gateway, many
writes per transaction. *Naive* uses one transaction per write, with the same functions and one
connection per caller (SQLite still allows only one writer at a time). A *bare commit* is one small
durable INSERT, the least that any ledger on this database can take. One run measures everything on
both databases, with fsync on.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from rich.progress import track
from sqlalchemy import Engine

from benchmarks.ledger.one_client import Added, added, bare_commits, timed
from benchmarks.machine import Machine, machine
from serve_app.domain.clock import SystemClock
from serve_app.domain.model import Caller
from serve_app.domain.units import (
    Credits,
    KeyId,
    ModelId,
    Moment,
    RequestId,
    Seconds,
    Tokens,
)
from serve_app.ledger.accounts import credit_grants, tenant_accounts, tenant_keys
from serve_app.ledger.db.audit_log import AuditContext
from serve_app.ledger.db.engines import open_writer, opened, transaction
from serve_app.ledger.db.schema import migrate
from serve_app.ledger.money.reservation import Reservation
from serve_app.ledger.posting.books import Books
from serve_app.ledger.reports.balances import check_balances
from serve_app.ledger.sql_ledger import SqlLedger
from serve_app.ports import Quote, Usage
from testkit.postgres import running

TENANTS = 8
AMOUNT = Credits(400)
USAGE = Usage(documents=50, tokens=Tokens(3_400))
MODEL = ModelId("embedded")
CLOCK = SystemClock()
TIMEOUT_S = Seconds(30)
MARGIN_S = Seconds(30)
PATIENCE_S = Seconds(300)  # Among 64 writers, SQLite makes some wait very long.
BARE_COMMITS = 200
REQUESTS = 600
_numbers = count()


@dataclass(frozen=True, slots=True)
class Speed:
    """The speed of one way to write, at one concurrency."""

    database: str
    way: str
    concurrency: int
    requests_per_s: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Result:
    """The result of the benchmark."""

    question: str
    date: str
    machine: Machine
    speeds: list[Speed]
    bare_commit_ms: dict[str, float]
    one_client_in_bare_commits: dict[str, float]
    """Time of a reservation and a charge with one caller, in bare commits of that database."""

    added_to_a_request: dict[str, list[Added]]

    group_commit_against_naive: dict[str, dict[int, float]]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the ledger on both databases.")
    parser.add_argument("--seconds", type=float, default=5.0, help="duration of each measurement")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument(
        "--flush-ms",
        type=int,
        default=0,
        help="delay of PostgreSQL before each flush, to simulate a slower disk",
    )
    parser.add_argument("--json", type=Path, help="write the result to this file")
    chosen = parser.parse_args()
    speeds: list[Speed] = []
    bare: dict[str, float] = {}
    extra: dict[str, list[Added]] = {}
    with databases(chosen.flush_ms) as urls:
        for database, url in urls.items():
            callers = prepare(url)
            bare[database] = bare_commit_ms(url)
            extra[database] = [
                added(url, callers[0], documents, REQUESTS) for documents in (1, 5, 50)
            ]
            for concurrency in track(chosen.concurrency, database):
                for way, measure in (("group commit", group_commit), ("naive", naive)):
                    times_ms, took_s = measure(url, callers, concurrency, chosen.seconds)
                    speeds.append(speed(database, way, concurrency, times_ms, took_s))
            with transaction(url, TIMEOUT_S) as connection:
                assert not check_balances(connection), "the books do not balance"
    result = Result(
        question="ledger: requests/s, and how long one of them waits",
        date=datetime.now(UTC).strftime("%Y-%m-%d"),
        machine=machine(),
        speeds=speeds,
        bare_commit_ms=bare,
        one_client_in_bare_commits={
            each.database: round(each.p50_ms / bare[each.database], 2)
            for each in speeds
            if each.concurrency == 1 and each.way == "group commit"
        },
        added_to_a_request=extra,
        group_commit_against_naive=against_naive(speeds),
    )
    show(result)
    if chosen.json:
        chosen.json.write_text(json.dumps(asdict(result), indent=1) + "\n", encoding="utf-8")


@contextmanager
def databases(flush_ms: int = 0) -> Iterator[dict[str, str]]:
    """Yield the URLs of two empty databases, on the disk with temporary files."""
    with tempfile.TemporaryDirectory() as folder, running(durable=True) as server:
        for name, value in (("commit_delay", 1_000 * flush_ms), ("commit_siblings", 0)):
            server.execute(f"ALTER SYSTEM SET {name} = {value}")
        server.execute("SELECT pg_reload_conf()")
        yield {"sqlite": f"sqlite:///{folder}/rerank.db", "postgresql": server.url()}


def prepare(url: str) -> list[Caller]:
    """Create tenants with more credit than any run uses; return a caller of each."""
    migrate(url)
    audit = AuditContext("benchmark", CLOCK.moment())
    callers = []
    with transaction(url, TIMEOUT_S) as connection:
        for number in range(TENANTS):
            tenant = tenant_accounts.create_tenant(connection, f"tenant-{number}", audit).id
            key_id = KeyId(f"key-{number}")
            new = tenant_keys.NewKey(key_id, bytes(32), "benchmark", {"rerank"}, None, None)
            tenant_keys.create_key(connection, tenant, new, audit)
            credit_grants.grant(connection, tenant, Credits(10**12), "benchmark", audit)
            callers.append(Caller(tenant, key_id, frozenset({"rerank"}), None))
    return callers


def bare_commit_ms(url: str) -> float:
    """Return the median time of one small durable INSERT on an open connection."""
    times_ms: list[float] = []
    with bare_commits(url) as commit:
        for _ in range(BARE_COMMITS):
            with timed(times_ms):
                commit()
    return round(statistics.median(times_ms), 3)


def group_commit(
    url: str, callers: Sequence[Caller], concurrency: int, seconds: float
) -> tuple[list[float], float]:
    """Return the times of all requests in milliseconds, and the total time in seconds."""
    ledger = SqlLedger(url, CLOCK, MARGIN_S)
    ledger.start()
    times_ms: list[float] = []

    async def one_caller(number: int) -> None:
        caller = callers[number % TENANTS]
        while time.perf_counter() < end:
            started = time.perf_counter()
            request_id = new_id()
            quote = Quote(request_id, MODEL, USAGE.documents, AMOUNT, TIMEOUT_S)
            await ledger.reserve(caller, quote)
            await ledger.commit(request_id, AMOUNT, USAGE)
            times_ms.append(1_000 * (time.perf_counter() - started))

    async def all_callers() -> None:
        await asyncio.gather(*(one_caller(number) for number in range(concurrency)))

    began = time.perf_counter()
    end = began + seconds
    asyncio.run(all_callers())
    took_s = time.perf_counter() - began
    ledger.close()
    return times_ms, took_s


def naive(
    url: str, callers: Sequence[Caller], concurrency: int, seconds: float
) -> tuple[list[float], float]:
    """Measure as `group_commit`, but with one transaction per write."""
    times_ms: list[float] = []

    def one_caller(engine: Engine, number: int) -> None:
        caller = callers[number % TENANTS]
        while time.perf_counter() < end:
            started = time.perf_counter()
            request_id = new_id()
            with engine.begin() as connection:
                books = Books.open(connection, {caller.tenant}, {request_id})
                books.reserve(a_reservation(caller, request_id))
                books.write()
            with engine.begin() as connection:
                books = Books.open(connection, (), {request_id})
                books.commit(request_id, AMOUNT, USAGE, CLOCK.moment())
                books.write()
            times_ms.append(1_000 * (time.perf_counter() - started))

    with (
        opened(open_writer(url, PATIENCE_S, connections=concurrency)) as engine,
        ThreadPoolExecutor(concurrency) as threads,
    ):
        began = time.perf_counter()
        end = began + seconds
        for done in [threads.submit(one_caller, engine, number) for number in range(concurrency)]:
            done.result()
        took_s = time.perf_counter() - began
    return times_ms, took_s


def a_reservation(caller: Caller, request_id: RequestId) -> Reservation:
    now = CLOCK.moment()
    return Reservation(
        request_id,
        caller.tenant,
        caller.key_id,
        MODEL,
        AMOUNT,
        created_at=now,
        expires_at=Moment(now + 60_000),
    )


def new_id() -> RequestId:
    return RequestId(f"rr_{next(_numbers):032x}")


def speed(
    database: str, way: str, concurrency: int, times_ms: Sequence[float], took_s: float
) -> Speed:
    cuts = statistics.quantiles(times_ms, n=100)
    rate = round(len(times_ms) / took_s, 1)
    return Speed(database, way, concurrency, rate, round(cuts[49], 2), round(cuts[98], 2))


def against_naive(speeds: Sequence[Speed]) -> dict[str, dict[int, float]]:
    """Return the ratio of group commit's requests/s to naive's, by database and concurrency."""
    ratios: dict[str, dict[int, float]] = {}
    for each in speeds:
        if each.way == "naive":
            (grouped,) = (
                other
                for other in speeds
                if (other.database, other.concurrency) == (each.database, each.concurrency)
                and other.way != "naive"
            )
            ratio = round(grouped.requests_per_s / each.requests_per_s, 2)
            ratios.setdefault(each.database, {})[each.concurrency] = ratio
    return ratios


def show(result: Result) -> None:
    print(f"{'database':12}{'way':14}{'callers':>8}{'requests/s':>12}{'p50 ms':>9}{'p99 ms':>9}")
    for each in result.speeds:
        print(
            f"{each.database:12}{each.way:14}{each.concurrency:8}{each.requests_per_s:12,.0f}"
            f"{each.p50_ms:9.1f}{each.p99_ms:9.1f}"
        )
    print(f"bare durable commit, ms: {result.bare_commit_ms}")
    print(f"one request with one caller, in bare commits: {result.one_client_in_bare_commits}")
    for database, requests in result.added_to_a_request.items():
        for one in requests:
            print(
                f"{database}: metering adds to a request of {one.documents} documents of one client"
                f" {one.added_ms:.1f} ms; in bare commits:"
                f" {one.added_in_bare_commits}"
            )
    print(f"group commit against naive: {result.group_commit_against_naive}")


if __name__ == "__main__":
    main()
