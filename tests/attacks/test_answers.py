"""Every client gets its own answer, even if other clients send unfinished requests.

If the gateway refuses a request before it has read the body, it still expects the rest of the body
on the connection from HAProxy. If HAProxy then sends another client's request on that connection,
the gateway reads the request as part of the body, and later answers go to the wrong clients.
"""

import http.client
import socket
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Literal
from urllib.parse import urlsplit

import httpx
import pytest

from testkit.service import Service
from tests.attacks.conftest import NO_KEY, everything_answers
from tests.attacks.http2 import Http2Connection

pytestmark = pytest.mark.ray

ANNOUNCED_BYTES = 5_000
JSON = {"content-type": "application/json", "content-length": str(ANNOUNCED_BYTES)}
GZIP = {"content-encoding": "gzip"}
TOO_LARGE = {"content-length": "10000001"}
VICTIMS = 8
"""Clients after each attack. HAProxy has four threads with separate idle connections."""

EARLY_ANSWERS: dict[str, tuple[str, str, Mapping[str, str] | Literal["own"], int]] = {
    "no key": ("POST", "/v1/rerank", {}, 401),
    "a wrong key": ("POST", "/v1/rerank", {"authorization": f"Bearer {NO_KEY}"}, 401),
    "an admin route without a key": ("POST", "/admin/v1/tenants", {}, 401),
    "an admin route with another key": ("POST", "/admin/v1/tenants", "own", 403),
    "an unknown route": ("POST", "/nowhere", "own", 404),
    "an unknown model": ("GET", "/v1/models/nothing", "own", 404),
    "a method that the route does not serve": ("PUT", "/v1/rerank", "own", 405),
    "an unknown method": ("BREW", "/v1/rerank", "own", 405),
    "a body too large": ("POST", "/v1/rerank", "own", 413),
    "a compressed body": ("POST", "/v1/rerank", "own", 415),
    "a timeout that is no number": ("POST", "/v1/score", "own", 400),
    "a body for a route without one": ("POST", "/health", {}, 405),
    "a body of a GET request": ("GET", "/health", {}, 200),
    "a body of a page": ("GET", "/openapi.json", {}, 200),
}
MORE_HEADERS: dict[str, Mapping[str, str]] = {
    "a body too large": TOO_LARGE,
    "a compressed body": GZIP,
    "a timeout that is no number": {"x-request-timeout-s": "soon"},
}

each_early_answer = pytest.mark.parametrize("case", EARLY_ANSWERS)


def request_of(case: str, service: Service) -> tuple[str, str, dict[str, str], int]:
    method, path, key, status = EARLY_ANSWERS[case]
    headers = {"authorization": f"Bearer {service.key}"} if key == "own" else key
    return method, path, {**JSON, **headers, **MORE_HEADERS.get(case, {})}, status


def is_answered(service: Service) -> bool:
    """Return whether a client on a new connection gets the answer to its own request."""
    mark = uuid.uuid4().hex
    answer = httpx.get(f"{service.address}/{mark}", timeout=5)
    return answer.status_code == 404 and mark in answer.text


def check_other_clients(service: Service) -> None:
    with ThreadPoolExecutor(VICTIMS) as threads:
        assert all(threads.map(is_answered, [service] * VICTIMS))


@each_early_answer
def test_an_early_http2_response_does_not_affect_other_clients(service: Service, case: str) -> None:
    method, path, headers, status = request_of(case, service)

    for _ in range(2):
        with Http2Connection(service.address) as connection:
            stream = connection.request(method, path, headers, b"x" * 10, complete=False)
            assert connection.response(stream)[0] == status
            connection.end_early(stream)
            time.sleep(0.01)
            check_other_clients(service)


@each_early_answer
def test_an_early_http1_response_does_not_affect_other_clients(service: Service, case: str) -> None:
    method, path, headers, status = request_of(case, service)
    where = urlsplit(service.address)

    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=5)
    connection.putrequest(method, path)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders(b"x" * 10)
    assert connection.getresponse().status == status
    check_other_clients(service)
    connection.close()
    check_other_clients(service)


def test_an_incomplete_body_with_a_valid_key_does_not_affect_other_clients(
    service: Service,
) -> None:
    headers = JSON | {"authorization": f"Bearer {service.key}"}
    for _ in range(3):
        with Http2Connection(service.address) as connection:
            stream = connection.request("POST", "/v1/rerank", headers, b"x" * 10, complete=False)
            connection.end_early(stream)
            time.sleep(0.01)
            check_other_clients(service)


def test_a_refused_slow_upload_does_not_affect_other_clients(
    service: Service, broke_key: str
) -> None:
    """The upload continues after the answer, like curl with a rate limit."""
    for key in (NO_KEY, broke_key):
        headers = {"content-length": "70000", "authorization": f"Bearer {key}"}
        with Http2Connection(service.address, timeout_s=30) as connection:
            stream = connection.request("POST", "/v1/rerank", headers, complete=False)
            for _ in range(6):
                connection.send(stream, b"x" * 10_000)
                time.sleep(0.05)
            connection.end_early(stream)
            check_other_clients(service)


def test_a_client_that_sends_a_refused_body_to_its_end_gets_the_whole_answer(
    service: Service,
) -> None:
    """If the gateway closed the connection earlier, HAProxy could lose the answer's body."""
    body = b"x" * 11_000_000

    for key in [NO_KEY, service.key] * 30:
        headers = {"authorization": f"Bearer {key}"}
        answer = httpx.post(
            f"{service.address}/v1/rerank", content=body, headers=headers, timeout=8
        )
        assert answer.status_code in (401, 413, 429)
        assert answer.json()["error"]["code"]


def test_refused_uploads_of_unknown_length_do_not_wait(service: Service) -> None:
    """Clients such as httpx send the whole body before they read."""

    def chunks() -> Iterator[bytes]:
        for _ in range(30):
            yield b"x" * 1_000_000

    for key in [NO_KEY, service.key] * 15:
        headers = {"authorization": f"Bearer {key}"}
        try:
            answer = httpx.post(
                f"{service.address}/v1/rerank", content=chunks(), headers=headers, timeout=8
            )
        except (httpx.RemoteProtocolError, httpx.WriteError):  # Closed while it was sending.
            continue
        assert answer.status_code in (401, 413, 429)


def test_a_connection_continues_or_is_closed_but_never_mixes_up_responses(
    service: Service,
) -> None:
    where = urlsplit(service.address)
    refused = f"POST /v1/rerank HTTP/1.1\r\nhost: x\r\ncontent-length: {ANNOUNCED_BYTES}\r\n\r\n"
    mark = uuid.uuid4().hex
    with socket.create_connection((where.hostname, where.port or 80), 5) as raw:
        raw.sendall(refused.encode() + b"x" * ANNOUNCED_BYTES)
        raw.sendall(f"GET /{mark} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
        received = b""
        while data := raw.recv(65_536):
            received += data

    statuses = [line for line in received.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]
    assert statuses[0].split()[1] == b"401"
    assert len(statuses) == 1 or (statuses[1].split()[1] == b"404" and mark.encode() in received)


class Search:
    """Attackers try to get other clients' answers, or to send them their own."""

    def __init__(self, address: str, seconds: float) -> None:
        self._address = address
        self._ends_at = time.monotonic() + seconds
        self.seen: Counter[str] = Counter()

    def run(self) -> None:
        roles = [self._attack] * 4 + [self._behave] * 4
        threads = [threading.Thread(target=role) for role in roles]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _attack(self) -> None:
        """Leave a body unfinished, then send a body that contains complete requests."""
        count = 0
        while time.monotonic() < self._ends_at:
            count += 1
            announced = (300, 1_000, 5_000, 70_000)[count % 4]
            path = ("/v1/rerank", "/nowhere", "/admin/v1/tenants", "/v1/models")[count // 4 % 4]
            hidden = f"GET /attacker-{uuid.uuid4().hex} HTTP/1.1\r\nhost: x\r\n\r\n".encode()
            body = b"\r\n" * (announced // 2) + hidden * 5
            try:
                with Http2Connection(self._address) as connection:
                    headers = {"content-length": str(announced)}
                    stream = connection.request("POST", path, headers, b"x" * 10, complete=False)
                    connection.response(stream)
                    connection.end_early(stream)
                    time.sleep(0.005)
                for _ in range(4):
                    answer = httpx.post(f"{self._address}/v1/rerank", content=body, timeout=5)
                    self._note("attacker", answer.text, own="attacker")
            except (OSError, httpx.TransportError) as error:
                self.seen[f"attacker: {type(error).__name__}"] += 1

    def _behave(self) -> None:
        while time.monotonic() < self._ends_at:
            mark = f"victim-{uuid.uuid4().hex}"
            try:
                answer = httpx.get(f"{self._address}/{mark}", timeout=5)
                self._note("victim", answer.text, own=mark)
            except httpx.TransportError as error:
                self.seen[f"victim: {type(error).__name__}"] += 1

    def _note(self, who: str, text: str, *, own: str) -> None:
        if own in text:
            self.seen[f"{who}: its own path"] += 1
        elif "victim-" in text or "attacker-" in text:
            self.seen[f"{who}: another's answer"] += 1
        else:
            self.seen[f"{who}: no path"] += 1


def test_no_client_gets_the_response_to_another_request(service: Service) -> None:
    search = Search(service.address, seconds=6)

    search.run()

    # Requests inside a body are only text, so no answer contains their paths.
    assert set(search.seen) == {"victim: its own path", "attacker: no path"}
    assert search.seen["victim: its own path"] > 20
    everything_answers(service)
