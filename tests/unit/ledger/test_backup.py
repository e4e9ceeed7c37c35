"""The backup and restore commands of the operations guide, run as written."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import make_url, select

from serve_app.domain.clock import SystemClock
from serve_app.domain.errors import LedgerUnavailable
from serve_app.domain.model import Caller
from serve_app.domain.units import Credits, Moment, RequestId, Seconds
from serve_app.ledger.db.backup import back_up
from serve_app.ledger.db.engines import transaction
from serve_app.ledger.db.schema import migrate
from serve_app.ledger.db.tables import charges
from serve_app.ledger.reports.balances import Balance, balances
from serve_app.ledger.sql_ledger import SqlLedger
from serve_app.ledger.writer.limits import LedgerLimits
from testkit.postgres import Postgres, programs
from tests.support.fakes import until
from tests.support.ledger import (
    MARGIN_S,
    TIMEOUT_S,
    USAGE,
    a_quote,
    a_tenant,
)
from tests.support.snippets import snippets
from tests.unit.conftest import POSTGRESQL, SQLITE

GUIDE = Path(__file__).parents[3] / "docs/operate/backup.md"
COMMANDS = [each.text for each in snippets(GUIDE)]
BACK_UP_SQLITE, RESTORE_SQLITE, BACK_UP_POSTGRESQL, RESTORE_POSTGRESQL, RECONCILE = COMMANDS

REAL_TIME = LedgerLimits(expiry_interval_s=Seconds(0.05))


class LaterClock(SystemClock):
    """A clock that is one hour ahead."""

    def moment(self) -> Moment:
        return Moment(super().moment() + 3_600_000)


class Site:
    """A working folder and its ledger."""

    def __init__(self, folder: Path, url: str, variables: dict[str, str]) -> None:
        self.folder = folder
        self.url = url
        self._variables = variables

    def run(self, commands: str) -> str:
        """Run shell commands as an operator would."""
        done = subprocess.run(
            ["bash", "-euc", commands],
            cwd=self.folder,
            env=self._variables | {"RERANK_DATABASE_URL": self.url},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def balance(self) -> Balance:
        with transaction(self.url, TIMEOUT_S) as connection:
            (only,) = balances(connection)
        return only

    def charged(self) -> set[str]:
        with transaction(self.url, TIMEOUT_S) as connection:
            return set(connection.scalars(select(charges.c.request_id)))


@pytest.fixture
def site(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    if kind == SQLITE:
        url = f"sqlite:///{tmp_path / 'var' / 'rerank.db'}"
        migrate(url)
        yield Site(tmp_path, url, {"PATH": path})
        return
    server: Postgres = request.getfixturevalue("postgres")
    url = request.getfixturevalue("database_url")
    where = make_url(url)
    variables = {
        "PATH": f"{programs(None)}:{path}",
        "PGHOST": str(where.host),
        "PGPORT": str(where.port),
        "PGUSER": str(where.username),
        "PGDATABASE": str(where.database),
    }
    yield Site(tmp_path, url, variables)
    server.execute("DROP DATABASE IF EXISTS rerank_restored WITH (FORCE)")


@pytest.mark.slow
def test_a_backup_made_while_the_service_writes_can_be_restored(kind: str, site: Site) -> None:
    caller = a_tenant(site.url, 1_000_000)
    back_up_it, restore = (
        (BACK_UP_SQLITE, RESTORE_SQLITE)
        if kind == SQLITE
        else (BACK_UP_POSTGRESQL, RESTORE_POSTGRESQL)
    )

    before = asyncio.run(pay_while(site, caller, back_up_it))

    after = site.charged()
    assert after > before, "requests were charged during and after the backup"
    site.run(restore)
    if kind == POSTGRESQL:
        site.url = (
            make_url(site.url).set(database="rerank_restored").render_as_string(hide_password=False)
        )
    kept = site.charged()
    assert before <= kept < after
    assert site.balance().adds_up
    assert site.balance().pending >= 7
    start_on(site)
    assert site.balance().pending == 0
    assert site.balance().adds_up
    assert "0 reservations pending" in site.run(RECONCILE)


async def pay_while(site: Site, caller: Caller, commands: str) -> set[str]:
    """Charge requests while ``commands`` run; return the charges from before they began."""
    ledger = SqlLedger(site.url, SystemClock(), MARGIN_S, LedgerLimits())
    ledger.start()
    numbers = count()
    try:

        async def pay() -> None:
            request_id = RequestId(f"r{next(numbers)}")
            await ledger.reserve(caller, a_quote(request_id, 5))
            await ledger.commit(request_id, Credits(3), USAGE)

        await ledger.reserve(caller, a_quote(RequestId("pending"), 7))
        for _ in range(5):
            await pay()
        before = site.charged()
        running = asyncio.create_task(asyncio.to_thread(site.run, commands))
        while not running.done():
            await pay()
        await pay()
        await running
        return before
    finally:
        ledger.close()


def start_on(site: Site) -> None:
    """Start the ledger an hour later and wait until pending reservations have expired."""
    migrate(site.url)
    ledger = SqlLedger(site.url, LaterClock(), MARGIN_S, REAL_TIME)
    ledger.start()
    try:
        asyncio.run(until(lambda: site.balance().pending == 0))
    finally:
        ledger.close()


def test_a_backup_never_replaces_a_file(tmp_path: Path, migrated_file: Path) -> None:
    target = tmp_path / "backup.db"
    target.write_text("older")

    with pytest.raises(FileExistsError, match="already"):
        back_up(f"sqlite:///{migrated_file}", target, TIMEOUT_S)

    assert target.read_text() == "older"


def test_only_its_owner_can_read_a_backup(tmp_path: Path, migrated_file: Path) -> None:
    target = tmp_path / "backup.db"

    back_up(f"sqlite:///{migrated_file}", target, TIMEOUT_S)

    assert target.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["backup.db"], (
        "the backup is a single file"
    )


def test_a_backup_of_a_missing_ledger_is_refused_and_creates_no_file(tmp_path: Path) -> None:
    with pytest.raises(LedgerUnavailable):
        back_up(f"sqlite:///{tmp_path / 'none.db'}", tmp_path / "backup.db", TIMEOUT_S)

    assert not (tmp_path / "none.db").exists()
    assert not (tmp_path / "backup.db").exists()


def test_postgresql_is_backed_up_by_its_own_programs(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="pg_dump"):
        back_up("postgresql://localhost/rerank", tmp_path / "backup.db", TIMEOUT_S)
