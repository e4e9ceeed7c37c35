"""Thousands of connections without complete requests do not affect other clients."""

import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

import httpx
import pytest

from serve_app.deployments.haproxy import HEADER_TIMEOUT_S
from testkit.service import Service, wait_for
from tests.attacks.conftest import (
    BODY_TIMEOUT_S,
    IDLE_S,
    NO_KEY,
    everything_answers,
    rerank_body,
)

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

CONNECTIONS = 5_000
USED_CONNECTIONS = 8_000
"""More than HAProxy accepts from one address, or in total if its limit of open files is low."""

OTHER_ADDRESS = "127.0.0.2"
DRIP_EVERY_S = 1.0
MARGIN_S = IDLE_S + 60.0
"""Extra time, because HAProxy waits for the rest of a body that was answered early, and closing
thousands of connections takes time."""

REQUEST = b"POST /v1/rerank HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
BODY_HEADERS = b"content-length: 100000\r\nauthorization: Bearer "


class Flood:
    """Connections that send ``beginning`` and then, optionally, one byte per second."""

    def __init__(
        self, address: str, count: int, beginning: bytes, drip: bytes = b"", source: str = ""
    ) -> None:
        where = urlsplit(address)
        self._where = (where.hostname or "", where.port or 80)
        self._beginning = beginning
        self._drip = drip
        self._source = (source, 0) if source else None
        self._stopped = threading.Event()
        self.sockets: list[socket.socket] = []
        for _ in range(count):
            with suppress(ConnectionError):  # HAProxy may refuse connections from one address.
                self.sockets.append(self._connect())
        self.statuses: Counter[bytes] = Counter()
        """Status codes of the answers that `open_count` has read."""

    def _connect(self) -> socket.socket:
        connection = socket.create_connection(self._where, 60, self._source)
        if self._beginning:
            try:
                connection.sendall(self._beginning)
            except ConnectionError:
                connection.close()
                raise
        connection.setblocking(False)  # noqa: FBT003
        return connection

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Send bytes while the block runs, and close all connections at its end."""
        thread = threading.Thread(target=self._send_drips)
        thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            thread.join()
            for connection in self.sockets:
                connection.close()

    def _send_drips(self) -> None:
        while not self._stopped.wait(DRIP_EVERY_S):
            for connection in self.sockets if self._drip else []:
                try:
                    connection.send(self._drip)
                except OSError:
                    continue

    def open_count(self) -> int:
        """Return the number of connections that the server has not closed."""
        poller = select.poll()
        for connection in self.sockets:
            poller.register(connection, select.POLLIN | select.POLLHUP)
        readable = {descriptor for descriptor, _ in poller.poll(0)}
        return sum(
            not (connection.fileno() in readable and self._is_closed(connection))
            for connection in self.sockets
        )

    def _is_closed(self, connection: socket.socket) -> bool:
        """Read available data and return whether the server has closed its side."""
        try:
            while data := connection.recv(65_536):
                if data.startswith(b"HTTP/1.1 "):
                    self.statuses[data.split()[1]] += 1
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True


def revokes(service: Service, admin_key: str) -> None:
    """An operator can create and revoke a key."""
    with httpx.Client(
        base_url=service.address, headers={"x-api-key": admin_key}, timeout=2 * IDLE_S
    ) as admin:
        made = admin.post("/admin/v1/keys", json={"tenant": "operators"})
        key_id = made.raise_for_status().json()["id"]
        admin.post(f"/admin/v1/keys/{key_id}/revoke").raise_for_status()


FLOODS: dict[str, Callable[[str], tuple[bytes, bytes]]] = {
    "idle connections": lambda _key: (b"", b""),
    "half of the headers": lambda _key: (REQUEST, b""),
    "headers that drip": lambda _key: (REQUEST + b"x-drip: ", b"x"),
    "bodies that drip, without a key": lambda _key: (
        REQUEST + BODY_HEADERS + NO_KEY.encode() + b"\r\n\r\n{",
        b" ",
    ),
    "bodies that drip, with a key": lambda key: (
        REQUEST + BODY_HEADERS + key.encode() + b"\r\n\r\n{",
        b" ",
    ),
    "bodies that stop, with a key": lambda key: (
        REQUEST + BODY_HEADERS + key.encode() + b"\r\n\r\n{",
        b"",
    ),
}


@pytest.mark.parametrize("kind", FLOODS)
def test_five_thousand_connections_do_not_block_other_clients(
    service: Service, admin_key: str, broke_key: str, kind: str
) -> None:
    beginning, drip = FLOODS[kind](broke_key)
    flood = Flood(service.address, CONNECTIONS, beginning, drip)
    began = time.monotonic()

    with flood.going_on():
        while time.monotonic() < began + max(HEADER_TIMEOUT_S, BODY_TIMEOUT_S):
            everything_answers(service)
            revokes(service, admin_key)
        wait_for(lambda: not flood.open_count(), MARGIN_S, "the end of the connections")

    everything_answers(service)
    if "with a key" in kind:
        assert flood.statuses[b"408"] > 100, "bodies that held places until their timeout"
        # On a slow machine the gateway starts some requests so late that HAProxy's timeout, which
        # counts from the connection, comes first. HAProxy then answers with 400 or 500.
        assert set(flood.statuses) <= {b"400", b"408", b"429", b"500"}


def test_the_connections_of_one_address_leave_room_for_others(service: Service) -> None:
    """A connection stays open for 90 seconds after a request."""
    used = b"GET /-/routes HTTP/1.1\r\nhost: x\r\n\r\n"
    flood = Flood(service.address, USED_CONNECTIONS, used, source=OTHER_ADDRESS)

    with flood.going_on():
        for _ in range(3):
            everything_answers(service)
        assert flood.open_count() > CONNECTIONS


def test_pipelined_requests_without_a_key_do_not_block_other_clients(service: Service) -> None:
    one = b"GET /v1/models HTTP/1.1\r\nhost: x\r\nx-api-key: " + NO_KEY.encode() + b"\r\n\r\n"
    flood = Flood(service.address, 20, one * 50)

    with flood.going_on():
        for _ in range(3):
            everything_answers(service, timeout_s=5)


def test_slow_bodies_of_one_key_do_not_take_the_places_of_others(
    service: Service, broke_key: str
) -> None:
    """Requests beyond the key's share of places are refused immediately."""
    beginning, drip = FLOODS["bodies that drip, with a key"](broke_key)
    flood = Flood(service.address, 700, beginning, drip)

    def refused() -> bool:
        answer = httpx.post(
            f"{service.address}/v1/rerank",
            json=rerank_body(),
            headers={"authorization": f"Bearer {broke_key}"},
            timeout=30,
        )
        said = answer.json()["error"]["message"]
        return answer.status_code == 429 and "At most 512 concurrent requests of one key" in said

    with flood.going_on():
        wait_for(refused, what="a refusal because of the slow bodies")
        everything_answers(service, timeout_s=BODY_TIMEOUT_S)


def test_revoking_a_key_ends_its_unfinished_uploads(
    service: Service, admin_key: str, broke_key: str
) -> None:
    before = service.charges()
    headers = BODY_HEADERS + broke_key.encode() + b"\r\n\r\n{"
    flood = Flood(service.address, 20, REQUEST + headers, b" ")

    with flood.going_on(), httpx.Client(base_url=service.address, timeout=30) as client:
        client.headers["x-api-key"] = admin_key
        client.post(f"/admin/v1/keys/{broke_key.split('_')[1]}/revoke").raise_for_status()
        wait_for(lambda: not flood.open_count(), BODY_TIMEOUT_S + MARGIN_S, "the end of the bodies")

    assert flood.statuses == {b"401": 20}, "not 408, which comes later"
    assert service.charges() == before
