"""The proxy in front of the nodes, with a real HAProxy and imitations of nodes."""

import ssl
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from serve_app.deployments.local_ray import free_port
from testkit.http_server import serving
from testkit.service import wait_for
from tests.support.certificates import write_certificate
from tests.support.edge import FILE, Edge, edge


class Node:
    """A node's HAProxy: it answers health checks, and remembers the last request."""

    def __init__(self, certificate: Path | None = None) -> None:
        self.health = 200
        self.requests = 0
        self.headers: Mapping[str, str] = {}
        node = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                is_check = self.path == "/-/healthz"
                if not is_check:
                    node.requests += 1
                    node.headers = {name.lower(): value for name, value in self.headers.items()}
                self.send_response(node.health if is_check else 200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.target = f"127.0.0.1:{self.server.server_port}"


@pytest.fixture
def nodes() -> Iterator[tuple[Node, Node]]:
    first, second = Node(), Node()
    with serving(first.server), serving(second.server):
        yield first, second


@pytest.fixture
def proxy(nodes: tuple[Node, Node], tmp_path: Path) -> Iterator[Edge]:
    with edge(tmp_path, *(node.target for node in nodes)) as started:
        yield started


def client(proxy: Edge) -> httpx.Client:
    return httpx.Client(base_url=proxy.address, verify=proxy.trust, timeout=30)


def test_clients_speak_tls_and_both_nodes_get_requests(
    proxy: Edge, nodes: tuple[Node, Node]
) -> None:
    for _ in range(10):
        with client(proxy) as each:
            assert each.get("/v1/models").status_code == 200

    assert all(node.requests for node in nodes)
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(proxy.address.replace("https", "http"))


def test_a_client_cannot_forge_its_address_or_its_scheme(
    proxy: Edge, nodes: tuple[Node, Node]
) -> None:
    forged = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "http"}
    with client(proxy) as each:
        each.get("/", headers=forged)

    (node,) = [each for each in nodes if each.requests]
    assert node.headers["x-forwarded-for"] == "127.0.0.1"
    assert node.headers["x-forwarded-proto"] == "https"


def test_ray_serves_own_paths_are_closed(proxy: Edge) -> None:
    with client(proxy) as each:
        assert {each.get(path).status_code for path in ("/-/healthz", "/-/routes")} == {404}


def test_a_node_that_fails_its_check_gets_no_requests(
    proxy: Edge, nodes: tuple[Node, Node]
) -> None:
    nodes[0].health = 503

    with client(proxy) as each:

        def avoids_the_node() -> bool:
            before = nodes[0].requests
            assert {each.get("/v1/models").status_code for _ in range(10)} == {200}
            return nodes[0].requests == before

        wait_for(avoids_the_node, what="the end of requests to the node")


def test_a_request_for_a_node_that_is_gone_is_answered_by_another_one(tmp_path: Path) -> None:
    node = Node()
    with (
        serving(node.server),
        edge(tmp_path, f"127.0.0.1:{free_port()}", node.target) as proxy,
        client(proxy) as each,
    ):
        assert {each.get("/v1/models").status_code for _ in range(10)} == {200}


def test_an_address_that_sends_too_many_requests_is_refused(
    nodes: tuple[Node, Node], tmp_path: Path
) -> None:
    targets = [node.target for node in nodes]
    with edge(tmp_path, *targets, requests_max=10) as proxy, client(proxy) as each:
        answers = [each.get("/v1/models") for _ in range(20)]

    assert [answer.status_code for answer in answers] == [200] * 10 + [429] * 10
    assert answers[-1].headers["retry-after"] == "10"


def test_nodes_with_a_certificate_get_requests_by_tls(tmp_path: Path) -> None:
    authority = write_certificate(tmp_path / "nodes.pem")
    other = write_certificate(tmp_path / "other.pem")
    trusted, untrusted = Node(authority), Node(other)
    with ExitStack() as stack:
        for node in (trusted, untrusted):
            stack.enter_context(serving(node.server))
        targets = trusted.target, untrusted.target
        proxy = stack.enter_context(edge(tmp_path, *targets, node_authority=authority))
        each = stack.enter_context(client(proxy))
        wait_for(lambda: each.get("/v1/models").status_code == 200, what="an answer")
        for _ in range(10):
            each.get("/v1/models")

    assert trusted.requests
    assert untrusted.requests == 0


def test_the_time_limits_are_those_of_the_nodes() -> None:
    text = FILE.read_text()
    ray_env = (FILE.parents[1] / "ray.env").read_text()

    assert "timeout client 15s" in text
    assert "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S=15\n" in ray_env
    assert "timeout server 110s" in text
    assert "RAY_SERVE_HAPROXY_TIMEOUT_SERVER_S=110\n" in ray_env
