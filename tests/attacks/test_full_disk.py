"""With a full disk, the service answers 503 immediately, recovers, and charges correctly."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select
from starlette.types import ASGIApp

from serve_app.http.app import build_app
from serve_app.ledger.db.engines import transaction
from serve_app.ledger.db.schema import migrate
from serve_app.ledger.db.tables import charges
from serve_app.telemetry.logs import emit
from tests.support.fakes import until
from tests.support.ledger import TIMEOUT_S
from tests.support.ledger_app import LedgerApp
from tests.support.serve_log import serve_log
from tests.support.small_disk import SmallDisk, small_disk

CLIENTS = 8
CREDIT = 1_000_000
BODY = {"query": "blue sky", "documents": ["a blue sky", "grey"]}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk") as disk:
        yield disk


class Clients:
    """Clients that send rerank requests until ``stop``, and count the answers."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._key = key
        self.codes: Counter[str] = Counter()
        self.charged: set[str] = set()
        self.stop = False

    async def run(self) -> None:
        transport = httpx.ASGITransport(self._app)
        async with (
            httpx.AsyncClient(
                transport=transport,
                base_url="http://test",
                headers={"authorization": f"Bearer {self._key}"},
            ) as client,
            asyncio.TaskGroup() as group,
        ):
            for _ in range(CLIENTS):
                group.create_task(self._rerank(client))

    async def more(self, code: str, count: int) -> None:
        """Wait for ``count`` more answers with ``code``."""
        goal = self.codes[code] + count
        await until(lambda: self.codes[code] >= goal)

    async def _rerank(self, client: httpx.AsyncClient) -> None:
        while not self.stop:
            response = await client.post("/v1/rerank", json=BODY)
            answer = response.json()
            if response.status_code == 200:
                self.codes["ok"] += 1
                self.charged.add(answer["id"])
            else:
                assert response.status_code == 503
                assert int(response.headers["retry-after"]) >= 1
                self.codes[answer["error"]["code"]] += 1
            await asyncio.sleep(0.002)


def test_the_service_answers_503_on_a_full_disk_and_recovers(disk: SmallDisk) -> None:
    database_url = f"sqlite:///{disk.folder / 'rerank.db'}"
    migrate(database_url)
    app = LedgerApp(database_url)
    service = replace(
        app.service,
        log=emit,
        pipeline=replace(app.service.pipeline, ledger=app.ledger),
    )
    tenant = app.add_tenant("globex", CREDIT)
    _, key = app.add_key(tenant, "rerank")
    clients = Clients(build_app(service), key)

    async def scenario() -> None:
        running = asyncio.create_task(clients.run())
        await clients.more("ok", 20)
        for _ in range(2):
            disk.fill()
            await clients.more("ledger_unavailable", 100)
            disk.free()
            await clients.more("ok", 20)
        clients.stop = True
        await running

    with serve_log(disk.folder / "logs"):
        app.ledger.start()
        try:
            asyncio.run(scenario())
            app.ledger.check()
        finally:
            app.close()

    with transaction(database_url, TIMEOUT_S) as connection:
        assert set(connection.scalars(select(charges.c.request_id))) == clients.charged
