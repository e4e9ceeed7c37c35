"""A client that repeats its request with its key has one charge and one answer, whatever dies.

200 gateways or connections are killed between the COMMIT of a charge and the last byte of its
answer, half of them on each database; more are killed before the COMMIT or at a random time.
"""

import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random

import httpx
import pytest
from sqlalchemy import func, select

from serve_app.deployments.local_ray import free_port
from serve_app.domain.model import Caller
from serve_app.ledger.db.engines import reading
from serve_app.ledger.db.schema import migrate
from serve_app.ledger.db.tables import PENDING, charges, reservations
from serve_app.ledger.reports.balances import balances
from testkit.postgres import running
from testkit.service import wait_for
from tests.chaos.faults import POSTGRESQL, SQLITE
from tests.chaos.keyed_gateway import CHARGED, HALF, HEADERS, NEVER, PAUSE_HEADER, RESERVED
from tests.support.ledger import TIMEOUT_S, a_tenant

ROOT = Path(__file__).parents[2]
KILLED_AFTER_CHARGE = [CHARGED, HEADERS, HALF] * 17
CUT_AFTER_CHARGE = 49
KILLED_BEFORE_CHARGE = 3
CUT_AT_RANDOM = 20
PATH, REQUEST_TIMEOUT_S = "/v1/rerank", "3"
RESET_AT_CLOSE = struct.pack("ii", 1, 0)


class Gateways:
    """Starts gateways on one database; they end with the block of `gateways`."""

    def __init__(self, process: "subprocess.Popen[str]", database_url: str) -> None:
        self._process = process
        self.database_url = database_url

    def start(self, point: str) -> int:
        """Start a gateway that dies at ``point``; return its port."""
        port = free_port()
        assert self._process.stdin is not None
        self._process.stdin.write(f"{port} {point}\n")
        self._process.stdin.flush()
        give_up_at = time.monotonic() + 60
        while time.monotonic() < give_up_at:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                return port
            time.sleep(0.01)
        raise TimeoutError("the gateway did not start")

    def charged(self) -> int:
        with reading(self.database_url, TIMEOUT_S) as connection:
            return connection.scalar(select(func.count()).select_from(charges)) or 0

    def pending(self) -> int:
        query = (
            select(func.count()).select_from(reservations).where(reservations.c.state == PENDING)
        )
        with reading(self.database_url, TIMEOUT_S) as connection:
            return connection.scalar(query) or 0


@contextmanager
def gateways(database_url: str, caller: Caller) -> Iterator[Gateways]:
    command = [sys.executable, "-m", "tests.chaos.keyed_gateway", database_url]
    process = subprocess.Popen(
        [*command, caller.tenant, caller.key_id],
        stdin=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    )
    try:
        yield Gateways(process, database_url)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


class Client:
    """A client that sends one request with its own key, and repeats it until it is answered."""

    def __init__(self, http: httpx.Client, number: int) -> None:
        self._http = http
        self._body = {"query": f"blue {number}", "documents": ["grey", "red", "the blue"]}
        self._headers = {
            "authorization": "Bearer any",
            "idempotency-key": f"client {number}",
            "x-request-timeout-s": REQUEST_TIMEOUT_S,
        }

    def send(self, port: int) -> httpx.Response:
        url = f"http://127.0.0.1:{port}{PATH}"
        return self._http.post(url, json=self._body, headers=self._headers)

    def send_in_vain(self, port: int) -> None:
        with pytest.raises(httpx.TransportError):
            self.send(port)

    def hang_up(self, port: int, after_s: float | None = None) -> None:
        """Send the request, and reset the connection in the middle of the answer, or after a
        time."""
        headers = self._headers | ({PAUSE_HEADER: "yes"} if after_s is None else {})
        request = httpx.Request("POST", f"http://127.0.0.1:{port}{PATH}", json=self._body)
        lines = {**request.headers, **headers}.items()
        head = "\r\n".join(
            [f"POST {PATH} HTTP/1.1", *(f"{name}: {value}" for name, value in lines)]
        )
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
            connection.sendall(head.encode() + b"\r\n\r\n" + request.content)
            if after_s is not None:
                time.sleep(after_s)
                return
            answer = b""
            while b'"results"' not in answer:
                part = connection.recv(65_536)
                assert part
                answer += part

    def repeat(self, port: int) -> httpx.Response:
        """Repeat the request as errors ask for, until it is answered."""
        for _ in range(10):
            answer = self.send(port)
            if answer.status_code == 200:
                return answer
            assert answer.status_code in (409, 503), answer.text
            assert answer.json()["error"]["code"] != "idempotency_key_reused"
            time.sleep(float(answer.headers["retry-after"]))
        raise TimeoutError("the key is still in use")


@contextmanager
def migrated(database: str, folder: Path) -> Iterator[str]:
    if database == SQLITE:
        url = f"sqlite:///{folder}/rerank.db"
        migrate(url)
        yield url
        return
    with running(durable=False) as server:
        migrate(server.url())
        yield server.url()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("database", [SQLITE, POSTGRESQL])
def test_a_client_that_repeats_has_one_charge_and_one_answer(database: str, tmp_path: Path) -> None:
    with migrated(database, tmp_path) as url, gateways(url, a_tenant(url, 10**6)) as farm:
        with httpx.Client(timeout=30) as http:
            answers = break_it(farm, http)
        wait_for(lambda: not farm.pending(), 60, "the end of all reservations")
        with reading(url, TIMEOUT_S) as connection:
            charged = list(connection.scalars(select(charges.c.request_id)))
            (balance,) = balances(connection)

    assert len(answers) == 100 + KILLED_BEFORE_CHARGE + CUT_AT_RANDOM
    assert sorted(each.json()["id"] for each in answers) == sorted(charged)
    assert balance.adds_up
    assert balance.charged == sum(each.json()["meta"]["charge_micro_dollars"] for each in answers)
    for each in answers:
        assert [result["index"] for result in each.json()["results"]] == [2, 0, 1]


def break_it(farm: Gateways, http: httpx.Client) -> list[httpx.Response]:
    """Return the answer of each client, after its first request was interrupted."""
    random = Random(1)
    first, second = farm.start(NEVER), farm.start(NEVER)
    clients = (Client(http, number) for number in range(1_000))
    answers = []

    def finish(client: Client, *, replayed: bool | None) -> None:
        answer = client.repeat(second)
        if replayed is not None:
            assert ("idempotent-replayed" in answer.headers) == replayed
        assert client.repeat(first).content == answer.content
        answers.append(answer)

    for point in KILLED_AFTER_CHARGE:
        client, charged = next(clients), farm.charged()
        client.send_in_vain(farm.start(point))
        assert farm.charged() == charged + 1, "the gateway died after the charge"
        finish(client, replayed=True)
    for _ in range(CUT_AFTER_CHARGE):
        client, charged = next(clients), farm.charged()
        client.hang_up(first)
        assert farm.charged() == charged + 1, "the connection was cut after the charge"
        finish(client, replayed=True)
    for _ in range(KILLED_BEFORE_CHARGE):
        client, charged = next(clients), farm.charged()
        client.send_in_vain(farm.start(RESERVED))
        assert farm.charged() == charged
        finish(client, replayed=False)
    for _ in range(CUT_AT_RANDOM):
        client = next(clients)
        client.hang_up(first, random.uniform(0, 0.02))
        finish(client, replayed=None)
    return answers
