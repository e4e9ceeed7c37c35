"""The outermost middleware limits the input that reaches Ray Serve."""

import asyncio
import json
import pickle
from collections.abc import Iterable

import pytest
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from serve_app.http.inbound import InboundFilter, want_body
from serve_app.http.request_ids import OWN_ID_KEY
from serve_app.protocols.methods import METHODS

ANSWER: list[Message] = [
    {"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"0")]},
    {"type": "http.response.body", "body": b""},
]


class Client:
    """Sends one request to an application behind the filter, and stores the response."""

    def __init__(
        self,
        *headers: tuple[bytes, bytes],
        method: str = "POST",
        chunks: Iterable[bytes] = (),
    ) -> None:
        self.scope: Scope = {
            "type": "http",
            "method": method,
            "path": "/v1/rerank",
            "headers": list(headers),
        }
        self.unread = list(chunks)
        self.sent: list[Message] = []

    async def receive(self) -> Message:
        if not self.unread:
            return {"type": "http.disconnect"}
        chunk = self.unread.pop(0)
        return {"type": "http.request", "body": chunk, "more_body": bool(self.unread)}

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])


class Inner:
    """An application that answers, and with ``reads`` reads the body first."""

    def __init__(self, *, reads: bool) -> None:
        self.reads = reads
        self.scope: Scope | None = None
        self.received: list[Message] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        # Ray reads ahead of the application, as this task does.
        ahead = asyncio.create_task(self._read_ahead(receive))
        await asyncio.sleep(0.01)
        if self.reads:
            want_body(Request(scope))
            await ahead
        for message in ANSWER:
            await send(dict(message))
        ahead.cancel()

    async def _read_ahead(self, receive: Receive) -> None:
        while True:
            self.received.append(await receive())
            if self.received[-1]["type"] == "http.disconnect":
                return


def exchange(client: Client, *, reads: bool, holds_bodies: bool = True) -> Inner:
    inner = Inner(reads=reads)
    filtered = InboundFilter(inner, holds_bodies=holds_bodies)
    asyncio.run(filtered(client.scope, client.receive, client.send))
    return inner


@pytest.mark.parametrize(
    "announced",
    [(b"content-length", b"6"), (b"transfer-encoding", b"chunked")],
    ids=["with a length", "in chunks"],
)
def test_a_body_is_not_read_before_the_application_asks_for_it(
    announced: tuple[bytes, bytes],
) -> None:
    client = Client(announced, chunks=[b"abc", b"def"])

    inner = exchange(client, reads=False)

    assert inner.received == []


@pytest.mark.parametrize(
    "announced",
    [(b"content-length", b"6"), (b"transfer-encoding", b"chunked")],
    ids=["with a length", "in chunks"],
)
def test_the_rest_of_a_body_is_dropped_after_the_response(announced: tuple[bytes, bytes]) -> None:
    client = Client(announced, chunks=[b"abc", b"def"])

    exchange(client, reads=False)

    assert client.unread == []
    assert [message.get("more_body", False) for message in client.sent[1:]] == [True, False]


@pytest.mark.parametrize(
    "announced",
    [(b"content-length", b"6"), (b"transfer-encoding", b"chunked")],
    ids=["with a length", "in chunks"],
)
def test_a_response_before_the_end_of_the_body_closes_the_connection(
    announced: tuple[bytes, bytes],
) -> None:
    unread = Client(announced, chunks=[b"abc", b"def"])
    read = Client(announced, chunks=[b"abc", b"def"])

    exchange(unread, reads=False)
    inner = exchange(read, reads=True)

    assert unread.headers[b"connection"] == b"close"
    assert b"connection" not in read.headers
    assert [message["body"] for message in inner.received[:-1]] == [b"abc", b"def"]


def test_without_held_back_bodies_the_scope_can_be_pickled() -> None:
    client = Client((b"content-length", b"3"), chunks=[b"abc"])

    inner = exchange(client, reads=False, holds_bodies=False)

    assert inner.received[0]["body"] == b"abc"
    assert pickle.loads(pickle.dumps(inner.scope)) == inner.scope


def test_a_header_that_is_not_ascii_is_kept_where_ray_does_not_decode_it() -> None:
    kept = (b"idempotency-key", "Zählung".encode())
    dropped = (b"traceparent", b"caf\xe9")

    inner = exchange(Client(kept, dropped), reads=False)

    assert inner.scope is not None
    assert inner.scope["headers"][:-1] == [kept]


@pytest.mark.parametrize("headers", [(), ((b"content-length", b"0"),)])
def test_a_request_without_a_body_keeps_its_connection_and_detects_a_disconnect(
    headers: tuple[tuple[bytes, bytes], ...],
) -> None:
    client = Client(*headers, method="GET")

    inner = exchange(client, reads=False)

    assert b"connection" not in client.headers
    assert inner.received == [{"type": "http.disconnect"}]


@pytest.mark.parametrize(
    "name",
    [
        b"x-request-timeout-seconds",
        b"x-request-disconnect-disabled",
        b"x-session-id",
        b"x_session_id",
        b"serve_multiplexed_model_id",
        b"serve-multiplexed-model-id",
        b"serve_multiplexed-model_id",
        b"x-caf\xe9",
    ],
)
def test_headers_for_ray_and_names_it_cannot_decode_are_dropped(name: bytes) -> None:
    kept = (b"x-request-timeout-s", b"3")

    inner = exchange(Client((name, b"1"), kept), reads=False)

    assert inner.scope is not None
    assert inner.scope["headers"][:-1] == [kept]


@pytest.mark.parametrize(
    ("value", "is_kept"),
    [
        (b"my-trace.1:2_3", True),
        (b"x" * 128, True),
        (b"x" * 129, False),
        (b"x" * 14_000, False),
        (b"a b", False),
        (b"caf\xe9", False),
        (b"", False),
    ],
)
def test_a_request_id_is_kept_only_if_it_is_short_and_plain(value: bytes, is_kept: bool) -> None:
    inner = exchange(Client((b"x-request-id", value)), reads=False)

    assert inner.scope is not None
    ((name, sent),) = inner.scope["headers"]
    assert name == b"x-request-id"
    assert (sent == value) == is_kept


def test_a_request_without_an_id_gets_the_id_of_its_answer() -> None:
    made = set()
    for _ in range(2):
        inner = exchange(Client(), reads=False)
        assert inner.scope is not None
        own = inner.scope[OWN_ID_KEY]
        assert inner.scope["headers"] == [(b"x-request-id", own.encode())]
        made.add(own)
    named = exchange(Client((b"x-request-id", b"mine")), reads=False)

    assert len(made) == 2
    assert named.scope is not None
    assert OWN_ID_KEY not in named.scope


def test_an_unsupported_method_does_not_reach_ray() -> None:
    client = Client((b"content-length", b"3"), method="BREW" * 1_000, chunks=[b"abc"])

    inner = exchange(client, reads=False)

    body = json.loads(client.sent[1]["body"])
    assert inner.scope is None
    assert client.sent[0]["status"] == 405
    assert client.headers[b"allow"].decode() == ", ".join(METHODS)
    assert client.headers[b"connection"] == b"close"
    assert body["error"]["code"] == "method_not_allowed"
    assert body["id"] == ""
    assert len(body["error"]["message"]) < 300


def test_no_response_is_sniffed_for_another_content_type() -> None:
    client = Client(method="GET")

    exchange(client, reads=False)

    assert client.headers[b"x-content-type-options"] == b"nosniff"


def test_a_websocket_is_closed() -> None:
    client = Client()
    client.scope["type"] = "websocket"

    inner = exchange(client, reads=False)

    assert inner.scope is None
    assert client.sent == [{"type": "websocket.close"}]


@pytest.mark.parametrize(
    ("path", "status", "seen"),
    [("/-/healthz", 503, 404), ("/-/healthz", 200, 200), ("/v1/rerank", 503, 503)],
)
def test_only_the_health_checks_of_a_gateway_that_leaves_get_404(
    path: str, status: int, seen: int
) -> None:
    async def inner(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    client = Client(method="GET")
    client.scope["path"] = path

    asyncio.run(InboundFilter(inner, holds_bodies=True)(client.scope, client.receive, client.send))

    assert client.sent[0]["status"] == seen
