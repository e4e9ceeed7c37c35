"""Clients cannot control Ray or HAProxy."""

import json
import os
import re
import socket
import stat
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from testkit.service import ROOT, Service, wait_for
from tests.attacks.conftest import everything_answers, rerank_body
from tests.support.listening import ports_of

pytestmark = pytest.mark.ray

LONG_ID = "longid" * 2_500


def raw_request(service: Service, request: bytes) -> bytes:
    """Send raw bytes and return the beginning of the answer."""
    where = urlsplit(service.address)
    with socket.create_connection((where.hostname, where.port or 80), 10) as connection:
        connection.sendall(request)
        return connection.recv(65_536)


def test_headers_for_ray_have_no_effect(service: Service) -> None:
    headers = {
        "x-request-timeout-seconds": "0.0001",
        "x-request-disconnect-disabled": "?1",
        "serve_multiplexed_model_id": "another",
        "x-session-id": "s" * 1_000,
    }
    before = service.charges()

    with service.client() as client:
        answers = [
            client.post("/v1/rerank", json=rerank_body(), headers=headers) for _ in range(20)
        ]

    assert [answer.status_code for answer in answers] == [200] * 20
    assert service.charges() == before + 20


def test_a_client_that_disconnects_is_not_charged_whatever_its_headers_ask_of_ray(
    service: Service,
) -> None:
    before = service.charges()
    head = (
        f"POST /v1/rerank HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {service.key}\r\n"
        "x-request-disconnect-disabled: ?1\r\ncontent-length: 100000\r\n\r\n{"
    )
    where = urlsplit(service.address)
    for _ in range(5):
        with socket.create_connection((where.hostname, where.port or 80), 10) as connection:
            connection.sendall(head.encode())

    everything_answers(service)
    assert service.charges() == before + 1


@pytest.mark.parametrize(
    "header",
    [b"x-caf\xe9: 1", b"x-title: caf\xe9", b"x-request-id: caf\xe9", b"x-session-id: \xff\xfe"],
)
def test_bytes_that_are_not_utf8_cause_no_server_error(service: Service, header: bytes) -> None:
    answer = raw_request(
        service, b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n" + header + b"\r\n\r\n"
    )

    assert answer.split()[1] in (b"200", b"400")


def test_a_long_request_id_is_neither_answered_nor_logged(service: Service) -> None:
    answer = httpx.get(f"{service.address}/nowhere", headers={"x-request-id": LONG_ID})

    assert answer.status_code == 404
    assert re.fullmatch(r"rr_[0-9a-f]{32}", answer.headers["x-request-id"])
    assert LONG_ID[:200] not in service.logs()


def test_unknown_methods_create_no_metric_series(service: Service) -> None:
    for index in range(300):
        answer = httpx.request(f"BREW{index}", f"{service.address}/v1/rerank")
        assert answer.status_code == 405
        assert answer.json()["error"]["code"] == "method_not_allowed"
    with service.client() as client:
        assert client.put("/v1/rerank").status_code == 405

    def ray_metrics() -> str:
        return httpx.get(service.metrics_address, timeout=30).text

    wait_for(lambda: 'method="PUT"' in ray_metrics(), 60, "the metrics of a method that is served")
    methods = {
        sample.labels["method"]
        for family in text_string_to_metric_families(ray_metrics())
        for sample in family.samples
        if "method" in sample.labels
    }
    assert not [method for method in methods if method.startswith("BREW")]


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"OPTIONS * HTTP/1.1", b"400"),
        (b"GET /health HTTP/1.1\r\nhost: y", b"400"),
        (b"GET /health HTTP/1.1\r\nx: " + b"x" * 17_000, b"400"),
        (b"GET /nowhere HTTP/1.1\r\nconnection: upgrade\r\nupgrade: websocket", b"400"),
        (b"POST /v1/rerank HTTP/1.1\r\nupgrade: websocket\r\ncontent-length: 0", b"401"),
        (b"GET /nowhere HTTP/1.0", b"404"),
    ],
)
def test_odd_requests_are_answered(service: Service, request_line: bytes, status: bytes) -> None:
    answer = raw_request(service, request_line + b"\r\nhost: x\r\n\r\n")

    assert answer.split()[1] == status


def test_a_client_that_closes_its_sending_side_is_not_charged_without_an_answer(
    service: Service,
) -> None:
    """HAProxy takes it for a client that disconnects."""
    body = json.dumps(rerank_body()).encode()
    head = (
        f"POST /v1/rerank HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {service.key}\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    where = urlsplit(service.address)
    before = service.charges()
    answered = 0
    for _ in range(5):
        with socket.create_connection((where.hostname, where.port or 80), 10) as connection:
            connection.sendall(head.encode() + body)
            connection.shutdown(socket.SHUT_WR)
            status = connection.recv(65_536).split()[1]
        assert status in (b"200", b"400")
        answered += status == b"200"

    everything_answers(service)
    assert service.charges() == before + answered + 1


def test_requests_wait_while_the_only_gateway_is_replaced(service: Service) -> None:
    """Requests on their way to it get an error in JSON, or lose their connection."""
    (gateway,) = service.replicas("rerank")
    gateway.kill()
    codes = set()

    def is_answered() -> bool:
        try:
            with service.client() as client:
                answer = client.post("/v1/rerank", json=rerank_body())
        except httpx.TransportError:
            return False
        if answer.status_code != 200:
            codes.add(answer.json()["error"]["code"])
        return answer.status_code == 200

    wait_for(is_answered, 180, "an answer of the new gateway")
    assert codes <= {"gateway_lost", "no_gateway"}
    everything_answers(service)


def test_a_response_is_not_sniffed_for_another_type(service: Service) -> None:
    for path in ("/health", "/openapi.json", "/nowhere", "/docs"):
        answer = httpx.get(f"{service.address}{path}")
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_files_and_sockets_are_private_to_the_user(service: Service) -> None:
    """A folder that others cannot enter protects its content, whatever the modes."""
    open_to_others = []
    for folder, folders, files in os.walk(service.var_dir):
        for name in [*folders, *files]:
            path = Path(folder, name)
            if _others_can_reach(path, service.var_dir):
                open_to_others.append(path)

    assert open_to_others == []
    sockets = list((service.var_dir / "run").rglob("admin.sock"))
    assert sockets
    assert {stat.S_IMODE(path.stat().st_mode) for path in sockets} == {0o600}


def _others_can_reach(path: Path, top: Path) -> bool:
    within = [path, *(parent for parent in path.parents if parent.is_relative_to(top))]
    modes = [stat.S_IMODE(each.lstat().st_mode) for each in within]
    return all(mode & 0o077 for mode in modes)


def test_every_listening_port_is_documented(service: Service) -> None:
    """Ports are compared by program, because a single machine uses different numbers."""
    programs = {port.program for port in ports_of(service)}

    documented = (ROOT / "docs/operate/security.md").read_text()
    rows = set(re.findall(r"^\| `([^`]+)` \| [\w ,]+ \|", documented, re.MULTILINE))
    assert {"haproxy", "gateway", "scorer", "raylet"} <= programs
    assert programs <= rows
