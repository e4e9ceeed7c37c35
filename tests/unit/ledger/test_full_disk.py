"""On a full disk, requests fail immediately, charges stay correct and recovery is automatic."""

import asyncio
import random
import shutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import select

from serve_app.domain.clock import SystemClock
from serve_app.domain.errors import LedgerUnavailable
from serve_app.domain.model import Caller
from serve_app.domain.units import Credits, RequestId, Seconds
from serve_app.ledger.db.engines import transaction
from serve_app.ledger.db.tables import charges
from serve_app.ledger.sql_ledger import SqlLedger
from tests.support.fakes import until
from tests.support.ledger import (
    LIMITS,
    MARGIN_S,
    R1,
    TIMEOUT_S,
    USAGE,
    a_quote,
    a_tenant,
    balance,
    ledger_on,
    reserve_again,
)
from tests.support.serve_log import serve_log
from tests.support.small_disk import SmallDisk, small_disk

CLIENTS = 8
CREDIT = 1_000_000


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk") as disk:
        yield disk


class Traffic:
    """Clients that reserve and then commit or void, and that ignore refusals."""

    def __init__(self, ledger: SqlLedger, caller: Caller) -> None:
        self._ledger = ledger
        self._caller = caller
        self._numbers = count()
        self._random = random.Random(7)
        self.acknowledged: set[RequestId] = set()
        self.refused = 0
        self.stop = False

    async def run(self) -> None:
        """Run until ``stop`` or an error other than `LedgerUnavailable`."""
        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(self._client())

    async def answered(self, count: int) -> None:
        """Wait for ``count`` more commits."""
        goal = len(self.acknowledged) + count
        await until(lambda: len(self.acknowledged) >= goal)

    async def refusals(self, count: int) -> None:
        """Wait for ``count`` more refusals."""
        goal = self.refused + count
        await until(lambda: self.refused >= goal)

    async def _client(self) -> None:
        while not self.stop:
            request_id = RequestId(f"r{next(self._numbers)}")
            try:
                await self._ledger.reserve(self._caller, a_quote(request_id, 2))
                if self._random.random() < 0.25:
                    self._ledger.void(request_id, USAGE)
                else:
                    await self._ledger.commit(request_id, Credits(1), USAGE)
                    self.acknowledged.add(request_id)
            except LedgerUnavailable:
                self.refused += 1
            await asyncio.sleep(0.002)


@pytest.fixture
def database_url(disk: SmallDisk, migrated_file: Path) -> str:
    path = disk.folder / "rerank.db"
    shutil.copy(migrated_file, path)
    return f"sqlite:///{path}"


def test_a_full_disk_refuses_immediately_and_the_ledger_recovers(
    disk: SmallDisk, database_url: str
) -> None:
    acme = a_tenant(database_url, CREDIT)
    ledger = SqlLedger(database_url, SystemClock(), MARGIN_S, LIMITS)
    traffic = Traffic(ledger, acme)

    async def scenario() -> None:
        running = asyncio.create_task(traffic.run())
        await traffic.answered(30)
        for _ in range(3):
            disk.fill()
            await traffic.refusals(200)
            disk.free()
            await traffic.answered(30)
        traffic.stop = True
        await running

    with serve_log(disk.folder / "logs"):
        ledger.start()
        try:
            asyncio.run(scenario())
            ledger.check()
        finally:
            ledger.close()

    assert balance(database_url).charged == len(traffic.acknowledged)
    with transaction(database_url, TIMEOUT_S) as connection:
        assert set(connection.scalars(select(charges.c.request_id))) == traffic.acknowledged


def test_the_ledger_is_unavailable_as_long_as_the_disk_is_full(
    disk: SmallDisk, database_url: str
) -> None:
    acme = a_tenant(database_url, CREDIT)
    limits = replace(LIMITS, probe_interval_s=Seconds(0.005))

    async def scenario() -> None:
        disk.fill()
        with pytest.raises(LedgerUnavailable):
            await ledger.reserve(acme, a_quote(R1, 2))
        for _ in range(40):  # Long enough for many probes and ticks.
            assert not await ledger.ping()
            await asyncio.sleep(0.005)
        disk.free()
        await reserve_again(ledger, acme, a_quote(R1, 2))
        assert await ledger.ping()

    with ledger_on(database_url, limits) as ledger:
        asyncio.run(scenario())
