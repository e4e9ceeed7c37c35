"""Run the real service under traffic, inject faults, and verify the charges.

    clients ──HTTP──> rerank-serve up (HAProxy, 2 gateways, 2 scorers) ──> database
                            ^ SIGKILL                             ^ SIGKILL, cuts, locks

The seed determines the faults, their order and durations, and the clients' requests. It does not
determine which requests a fault affects.
"""

import json
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from serve_app.deployments.local_ray import free_port
from serve_app.domain.clock import SystemClock
from serve_app.domain.model import RateLimits
from serve_app.domain.units import Credits
from serve_app.ledger.db.engines import reading
from testkit.log_leaks import leaks_in_logs
from testkit.office import DATABASE_TIMEOUT_S, Office
from testkit.postgres import Postgres, running
from testkit.service import Service, deployment, model, serve_config, wait_for
from tests.chaos.database_proxy import DatabaseProxy
from tests.chaos.faults import POSTGRESQL, Happened, Kind, Planned, plan
from tests.chaos.traffic import PRICE, Client, Exchange
from tests.chaos.verifier import EXPIRY_GRACE_MS, Books, Logged, Verdict, verify

CLOCK = SystemClock()
READY_TIMEOUT_S = 240.0
TOP_UP_EVERY, REVOKE_EVERY = 3, 8
REVOCATIONS_MAX = 40
POOR, POOR_CREDIT = "poor", Credits(300 * PRICE)
LIMITS = RateLimits(requests_per_minute_max=100, documents_per_minute_max=2_000)


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of one run."""

    database: str
    seed: int
    seconds: float
    kills: int
    """Number of killed processes, plus resets of all connections."""

    faults: dict[str, int]
    requests: dict[str, int]
    """Number of requests by their outcome for the client."""

    charges: int
    documents: int
    tokens: int
    amount: int
    """Total charge in micro-dollars."""

    charges_without_200: dict[str, int]
    """Number of charges by the known gap of the billing guarantees that explains them."""

    reservations: dict[str, int]
    tenants_balanced: int
    violations: list[str]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class World:
    """One service and its database, with methods that inject faults."""

    def __init__(
        self,
        service: Service,
        database_url: str,
        postgres: Postgres | None,
        proxy: DatabaseProxy | None,
    ) -> None:
        self.service = service
        self.database_url = database_url
        self._postgres = postgres
        self._proxy = proxy

    def inject(self, planned: Planned) -> Happened:
        """Inject a fault, and wait until the service is ready again."""
        began_at = CLOCK.moment()
        kills = self._act(planned)
        happened = Happened(planned.kind, began_at, CLOCK.moment(), kills)
        wait_for(self.service.is_ready, READY_TIMEOUT_S, "readiness after a fault")
        return happened

    def _act(self, planned: Planned) -> int:
        return {
            Kind.GATEWAY: self._gateway,
            Kind.GATEWAYS: self._gateways,
            Kind.SCORER: self._scorer,
            Kind.WRITE_LOCK: self._write_lock,
            Kind.WRITE_LOCK_GATEWAY: self._write_lock_gateway,
            Kind.DATABASE: self._database,
            Kind.DATABASE_GATEWAY: self._database_gateway,
            Kind.CUT: self._cut,
            Kind.CUT_COMMIT: self._cut_commit,
            Kind.CUT_COMMIT_GATEWAYS: self._cut_commit_gateways,
            Kind.REFUSED: self._refused,
            Kind.FROZEN: self._frozen,
        }[planned.kind](planned)

    def _gateway(self, planned: Planned) -> int:
        return self._kill("gateway", planned.choice)

    def _gateways(self, _: Planned) -> int:
        return self._kill("rerank", None)

    def _scorer(self, planned: Planned) -> int:
        return self._kill("tiny", planned.choice)

    def _write_lock(self, planned: Planned) -> int:
        with self._locked():
            time.sleep(planned.hold_s)
        return 0

    def _write_lock_gateway(self, planned: Planned) -> int:
        with self._locked():
            time.sleep(planned.hold_s / 2)
            kills = self._gateway(planned)
            time.sleep(planned.hold_s / 2)
        return kills

    def _database(self, planned: Planned) -> int:
        return self._database_away(planned, lambda: 0)

    def _database_gateway(self, planned: Planned) -> int:
        return self._database_away(planned, lambda: self._gateway(planned))

    def _database_away(self, planned: Planned, meanwhile: Callable[[], int]) -> int:
        assert self._postgres is not None
        self._postgres.kill()
        kills = meanwhile()
        time.sleep(planned.hold_s)
        self._postgres.start()
        return 1 + kills

    def _cut(self, _: Planned) -> int:
        assert self._proxy is not None
        self._proxy.cut()
        return 1

    def _cut_commit(self, planned: Planned) -> int:
        return self._cut_commits(planned.commits, lambda: None)

    def _cut_commit_gateways(self, _: Planned) -> int:
        killed: list[int] = []
        cuts = self._cut_commits(1, lambda: killed.append(self._gateways_now()))
        return cuts + sum(killed)

    def _gateways_now(self) -> int:
        return self._kill("rerank", None)

    def _cut_commits(self, count: int, on_commit: Callable[[], None]) -> int:
        proxy = self._proxy
        assert proxy is not None
        proxy.cut_commits(count, on_commit)
        wait_for(lambda: proxy.commits_left_to_cut() == 0, 120, "a COMMIT to cut")
        proxy.heal()
        return count

    def _refused(self, planned: Planned) -> int:
        assert self._proxy is not None
        self._proxy.refuse()
        time.sleep(planned.hold_s)
        self._proxy.heal()
        return 1

    def _frozen(self, planned: Planned) -> int:
        assert self._proxy is not None
        self._proxy.freeze()
        time.sleep(planned.hold_s)
        self._proxy.cut()
        self._proxy.heal()
        return 1

    def _kill(self, application: str, choice: int | None) -> int:
        """Send SIGKILL to one replica, or to all; return the number of killed ones."""
        replicas = sorted(self.service.replicas(application), key=lambda each: each.pid)
        if choice is not None and replicas:
            replicas = [replicas[choice % len(replicas)]]
        killed = 0
        for replica in replicas:
            try:
                replica.send_signal(signal.SIGKILL)
                killed += 1
            except psutil.NoSuchProcess:
                continue
        return killed

    @contextmanager
    def _locked(self) -> Iterator[None]:
        path = self.database_url.removeprefix("sqlite:///")
        lock = sqlite3.connect(path, timeout=30, isolation_level=None)
        try:
            lock.execute("BEGIN IMMEDIATE")
            yield
            lock.execute("ROLLBACK")
        finally:
            lock.close()


@contextmanager
def world(database: str, folder: Path, gateways: int = 2) -> Iterator[World]:
    """Run a service on its own database."""
    from testkit.tiny_models import build  # noqa: PLC0415 - imports torch

    config = serve_config(
        [
            model(
                "tiny",
                str(build(folder / "tiny")),
                deployment(2),
                price_micro_dollars_per_document=PRICE,
                scorer_threads=1,
            )
        ],
        deployment(gateways),
        request_timeout_s=8,
        request_timeout_s_max=20,
        reservation_margin_s=1,
    )
    if database != POSTGRESQL:
        with _started(folder, config) as service:
            yield World(service, f"sqlite:///{service.var_dir / 'rerank.db'}", None, None)
        return
    with running(durable=False) as postgres:
        proxy = DatabaseProxy(postgres.port)
        url = postgres.url()
        through_proxy = url.replace(f":{postgres.port}/", f":{proxy.port}/")
        with _started(folder, config, RERANK_DATABASE_URL=through_proxy) as service:
            yield World(service, url, postgres, proxy)
        proxy.close()


@contextmanager
def _started(folder: Path, config: dict[str, Any], **env: str) -> Iterator[Service]:
    service = Service.start(folder, config, free_port(), **env)
    try:
        yield service
    finally:
        service.stop()


def read_log(*ray_folders: Path) -> dict[str, Logged]:
    """Return the gateways' log entry of each request, by the client's name for the request."""
    logged = {}
    paths = (
        path
        for folder in ray_folders
        for path in folder.glob("session_2*/logs/serve/replica_*gateway*.log")
    )
    for path in paths:
        for line in path.read_text(errors="replace").splitlines():
            if '"rerank_request"' in line and line.endswith("}"):
                fields = json.loads(line)
                charged = "charge_micro_dollars" in fields
                logged[fields["x_request_id"]] = Logged(fields["status"], charged)
    return logged


class Run:
    """One run: traffic, faults, recovery, verification."""

    def __init__(self, world: World, seed: int) -> None:
        self._world = world
        self._office = Office(world.database_url)
        self._faults: list[Happened] = []
        plenty = Credits(10**10)
        acme, globex, shifting, limited = (
            self._office.tenant(name, plenty) for name in ("acme", "globex", "shifting", "limited")
        )
        self._poor = self._office.tenant(POOR, POOR_CREDIT)
        self._to_revoke = [self._office.key(shifting) for _ in range(REVOCATIONS_MAX)]
        of_clients = [[self._office.key(tenant)] for tenant in (acme, acme, globex, self._poor)]
        of_clients += [[self._office.key(limited, LIMITS)], list(self._to_revoke)]
        self._clients = [
            Client(world.service.address, keys, f"{seed} {number}")
            for number, keys in enumerate(of_clients)
        ]

    def break_it(self, faults: Iterator[Planned], kills: int, say: Callable[[str], None]) -> None:
        """Start the traffic, and inject faults until ``kills`` kills."""
        for client in self._clients:
            client.start()
        number = 0
        while (done := sum(each.kills for each in self._faults)) < kills:
            planned = next(faults)
            self._administer(number)
            time.sleep(planned.pause_s)
            happened = self._world.inject(planned)
            self._faults.append(happened)
            number += 1
            say(f"{done + happened.kills:>4} kills: {planned.kind}")

    def recover(self) -> None:
        """Wait until all clients are served again, stop them, and wait for open reservations."""
        self._office.top_up(self._poor, POOR_CREDIT)
        moment = CLOCK.moment()
        # All clients but the rate-limited one, which may have to wait for a minute.
        served = [each for each in self._clients if each is not self._clients[4]]
        wait_for(
            lambda: all(each.answered_since(moment) for each in served), 180, "service for clients"
        )
        for client in self._clients:
            client.stop()
        for client in self._clients:
            client.join()
        time.sleep(2 * 5.5)  # Two ticks of every writer: all reversals are written.
        until = CLOCK.moment() + 60_000
        while CLOCK.moment() < until and self._pending_in_time():
            time.sleep(1)

    def judge(self) -> tuple[Verdict, Books, list[Exchange]]:
        books = self._books()
        exchanges = [exchange for client in self._clients for exchange in client.exchanges]
        log = read_log(self._world.service.var_dir / "ray")
        verdict = verify(exchanges, self._faults, books, log, CLOCK.moment())
        return verdict, books, exchanges

    @property
    def faults(self) -> list[Happened]:
        return self._faults

    def _administer(self, number: int) -> None:
        """Do an operator's work between faults, while the database is available."""
        if number % TOP_UP_EVERY == 0:
            self._office.top_up(self._poor, POOR_CREDIT)
        if number % REVOKE_EVERY == 1 and len(self._to_revoke) > 1:
            self._office.revoke(self._to_revoke.pop(0))

    def _pending_in_time(self) -> bool:
        """Return whether a reservation is pending and not past its expiry."""
        now = CLOCK.moment()
        return any(
            row["state"] == "pending" and row["expires_at"] + EXPIRY_GRACE_MS >= now
            for row in self._books().reservations
        )

    def _books(self) -> Books:
        with reading(self._world.database_url, DATABASE_TIMEOUT_S) as connection:
            return Books.read(connection)


def run(database: str, kills: int, seed: int, folder: Path, say: Callable[[str], None]) -> Report:
    """Start everything in ``folder``, inject ``kills`` kills, stop it, and report."""
    started = time.monotonic()
    with world(database, folder) as broken:
        chaos = Run(broken, seed)
        chaos.break_it(plan(database, seed), kills, say)
        chaos.recover()
        verdict, books, exchanges = chaos.judge()
    return Report(
        database=database,
        seed=seed,
        seconds=round(time.monotonic() - started, 1),
        kills=sum(each.kills for each in chaos.faults),
        faults=dict(Counter(str(each.kind) for each in chaos.faults).most_common()),
        requests=dict(Counter(each.outcome for each in exchanges).most_common()),
        charges=len(books.charges),
        documents=sum(row["documents"] for row in books.charges),
        tokens=sum(row["tokens"] for row in books.charges),
        amount=sum(row["amount"] for row in books.charges),
        charges_without_200=dict(verdict.charged_without_200),
        reservations=dict(Counter(row["state"] for row in books.reservations).most_common()),
        tenants_balanced=books.tenants - len(books.unbalanced),
        violations=verdict.violations + leaks_in_logs(folder),
    )
