"""The ledgers of three gateway processes keep one shared limit."""

import asyncio
import json
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from serve_app.domain.clock import SystemClock
from serve_app.domain.errors import RETRY_AFTER_S_MAX, RateLimited
from serve_app.domain.model import Caller
from serve_app.domain.units import Credits
from serve_app.ledger.db.schema import migrate
from serve_app.ledger.sql_ledger import SqlLedger
from testkit.office import Key, Office
from testkit.postgres import running
from testkit.service import ROOT, environment
from tests.chaos.faults import POSTGRESQL, SQLITE
from tests.chaos.hammer import MARGIN_S, ask, limited
from tests.chaos.tries import WINDOW_S, Try, check_limit

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PROCESSES = 3
LIMITS = {"requests": 120, "documents": 600}
SECONDS = WINDOW_S + 20  # The first requests may be slow on a busy machine.

Hammering = tuple[subprocess.Popen[bytes], Path]
"""A process, and the file with its output. A pipe that is read only later would fill and block."""


@dataclass(frozen=True, slots=True)
class Hammered:
    """The requests on one database within slightly more than a minute."""

    database_url: str
    keys: Mapping[str, Key]
    tries: Mapping[str, list[Try]]


@pytest.fixture(scope="module")
def hammered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Hammered]]:
    """Run both databases concurrently, because the processes mostly wait."""
    folder = tmp_path_factory.mktemp("hammered")
    with running(durable=False) as postgres:
        urls = {SQLITE: f"sqlite:///{folder / 'rerank.db'}", POSTGRESQL: postgres.url()}
        begun = {database: begin(url, folder) for database, url in urls.items()}
        yield {
            database: Hammered(urls[database], keys, gather(processes))
            for database, (keys, processes) in begun.items()
        }


def begin(url: str, folder: Path) -> tuple[dict[str, Key], list[Hammering]]:
    """Create a key for each kind of limit, and start the processes that share the keys."""
    migrate(url)
    office = Office(url)
    tenant = office.tenant("limited", Credits(1_000_000))
    keys = {what: office.key(tenant) for what in LIMITS}
    limits = [f"{keys[what].key_id}:{what}:{limit}" for what, limit in LIMITS.items()]
    command = [sys.executable, "-m", "tests.chaos.hammer", url, tenant, str(SECONDS), *limits]
    processes: list[Hammering] = []
    for _ in range(PROCESSES):
        printed = folder / f"{uuid.uuid4().hex}.jsonl"
        with printed.open("wb") as file:
            process = subprocess.Popen(command, cwd=ROOT, env=environment(folder), stdout=file)
        processes.append((process, printed))
    return keys, processes


def gather(processes: list[Hammering]) -> dict[str, list[Try]]:
    """Return the processes' requests, by kind of limit."""
    tries: dict[str, list[Try]] = {what: [] for what in LIMITS}
    for process, printed in processes:
        assert process.wait(timeout=400) == 0
        for line in printed.read_text().splitlines():
            what, *tried = json.loads(line)
            tries[what].append(Try(*tried))
    return tries


async def refused_for_s(ledger: SqlLedger, caller: Caller) -> int | None:
    """Send a request; return its Retry-After, or ``None`` if it was admitted."""
    try:
        await ask(ledger, caller, 1)
    except RateLimited as refusal:
        return refusal.retry_after_s
    return None


@pytest.mark.parametrize("what", LIMITS)
@pytest.mark.parametrize("database", [SQLITE, POSTGRESQL])
def test_a_limit_per_minute_holds_across_processes(
    hammered: dict[str, Hammered], database: str, what: str
) -> None:
    check_limit(hammered[database].tries[what], LIMITS[what])


@pytest.mark.parametrize("database", [SQLITE, POSTGRESQL])
def test_a_refusal_has_retry_after(hammered: dict[str, Hammered], database: str) -> None:
    of = hammered[database]
    key = of.keys["requests"]
    caller = limited(key.tenant, key.key_id, "requests", LIMITS["requests"])
    ledger = SqlLedger(of.database_url, SystemClock(), MARGIN_S)
    ledger.start()

    async def scenario() -> None:
        while (wait_s := await refused_for_s(ledger, caller)) is None:
            continue
        assert isinstance(wait_s, int)
        await asyncio.sleep(wait_s)
        if wait_s == RETRY_AFTER_S_MAX:  # The whole wait may be one second longer.
            await asyncio.sleep(await refused_for_s(ledger, caller) or 0)
        assert await refused_for_s(ledger, caller) is None

    try:
        asyncio.run(scenario())
    finally:
        ledger.close()
