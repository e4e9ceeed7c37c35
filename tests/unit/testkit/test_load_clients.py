"""The clients of a load, against a real HTTP server."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from testkit.http_server import serving
from testkit.load import Group, Target, bodies, closed_loop, open_loop, send_each


@contextmanager
def server(statuses: list[int]) -> Iterator[Target]:
    """Run a server that answers with ``statuses`` in turn, and with 200 after them."""
    remaining = iter(statuses)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            results = [{"index": index} for index in range(len(request["documents"]))]
            body = json.dumps({"results": results}).encode()
            self.send_response(next(remaining, 200))
            self.send_header("Retry-After", "0.01")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    with serving(http):
        yield Target(f"http://127.0.0.1:{http.server_port}/v1/rerank", "some")


def test_all_clients_send_throughout_the_window() -> None:
    with server([429, 504]) as target:
        groups = [Group("few", target, 1, 5), Group("many", target, 3, 2)]
        observed = closed_loop(groups, 0.2, lambda: 1.0)

    few = [each for each in observed.answers if each.group == "few"]
    many = [each for each in observed.answers if each.group == "many"]
    assert observed.closed - observed.opened >= 0.2
    for answers in (few, many):
        assert answers[0].ended <= observed.opened
        assert answers[-1].ended >= observed.closed
    documents = [each.documents for each in observed.answers]
    assert documents.count(0) == 1, "the answer 504"
    assert set(documents) == {0, 2, 5}


def test_an_open_load_begins_at_its_times() -> None:
    with server([]) as target:
        observed = open_loop(Group("all", target, 1, 3), 50, 0.3, lambda: 1.0)

    began = [each.began for each in observed.answers]
    assert began == sorted(began)
    assert all(observed.opened <= each < observed.opened + 0.3 for each in began)
    assert {each.documents for each in observed.answers} == {3}


def test_results_are_in_the_order_of_the_requests() -> None:
    with server([]) as target:
        group = Group("all", target, 1, 2)
        assert send_each(group, bodies(group, 0)[:2]) == [[{"index": 0}, {"index": 1}]] * 2


def test_an_unexpected_status_ends_the_load() -> None:
    with (
        server([200, 500]) as target,
        pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="500")),
    ):
        closed_loop([Group("all", target, 2, 1)], 5, lambda: 1.0)
