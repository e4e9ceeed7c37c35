"""The outermost ASGI middleware of a gateway. It limits the input that reaches Ray Serve.

Ray Serve puts it around its own HTTP handling (`serve_app.deployments.middlewares`).

* Unknown methods are refused before Ray uses them as a metric label.
* Headers are dropped that control Ray, that it fails to decode, or that it would log at any length.
* A request without an id gets one, because Ray's would differ from the ``id`` in the answer's body.
* The server holds the body, of which it reads at most 128 KB ahead, until the application calls
  `want_body`. Ray would queue all of it before the caller is authenticated.
* The health checks of a gateway that is shutting down get 404 instead of 503, so that HAProxy
  sends it no more requests, but leaves it those that it has.
* A response that leaves part of the body unread closes the connection. HAProxy would otherwise
  reuse it for another client's request, which the server would take for the rest of the body.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from http import HTTPStatus

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.domain.errors import MethodNotAllowed
from serve_app.http.problems import problem
from serve_app.http.request_ids import ACCEPTED_ID, HEADER, OWN_ID_KEY, random_request_id
from serve_app.protocols.json_body import shown
from serve_app.protocols.methods import METHODS

REQUEST_ID = HEADER.encode()


def _never(_value: bytes) -> bool:
    return False


def _is_plain_id(value: bytes) -> bool:
    return ACCEPTED_ID.fullmatch(value.decode("latin-1")) is not None


CHECKED_HEADERS: dict[bytes, Callable[[bytes], bool]] = {
    # These change how Ray Serve treats a request.
    b"x-request-timeout-seconds": _never,
    b"x-request-disconnect-disabled": _never,
    b"x-session-id": _never,
    b"serve-multiplexed-model-id": _never,
    # Ray decodes these.
    REQUEST_ID: _is_plain_id,
    b"traceparent": bytes.isascii,
    b"tracestate": bytes.isascii,
}
"""Headers that are dropped unless their value passes. Ray reads an underscore as a hyphen."""

LINGER_S = 2.0
"""How long the rest of a body is dropped after an early answer. If the connection closed while
HAProxy sends, HAProxy could lose the end of the answer, or leave its client waiting."""

HEALTH_PATH = "/-/healthz"
"""Path of HAProxy's health checks, which Ray answers."""

_WANT_BODY = "serve_app.want_body"
_NO_LENGTH = (b"", b"0")

Headers = Iterable[tuple[bytes, bytes]]


def want_body(request: Request) -> None:
    """Release the request's body; call this before reading it."""
    want: Callable[[], None] | None = request.scope.get(_WANT_BODY)
    if want is not None:  # The application may run without the filter.
        want()


class InboundFilter:
    """See the module's docstring."""

    def __init__(self, app: ASGIApp, *, holds_bodies: bool) -> None:
        """``holds_bodies``: whether the application calls `want_body` in this process."""
        self._app = app
        self._holds_bodies = holds_bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        body = _Body(receive, scope["headers"])
        if self._holds_bodies:
            scope[_WANT_BODY] = body.want
        else:
            body.want()

        async def send_bounded(message: Message) -> None:
            if message["type"] == "http.response.start":
                body.hold()
                message["status"] = _status(scope["path"], message["status"])
                message["headers"] = [*message.get("headers", ()), *_added_headers(body)]
            elif not body.is_read and not message.get("more_body", False):
                # The client gets its whole answer first.
                await send({**message, "more_body": True})
                await body.drop_rest()
                message = {"type": "http.response.body"}
            await send(message)

        if scope["method"] not in METHODS:
            error = MethodNotAllowed(shown(scope["method"]), ", ".join(METHODS))
            # There is no id, and nothing is logged.
            await problem(error, "")(scope, body.receive, send_bounded)
            return
        scope["headers"] = list(_accepted(scope["headers"]))
        _name(scope)
        await self._app(scope, body.receive, send_bounded)


class _Body:
    def __init__(self, receive: Receive, headers: Headers) -> None:
        self._receive = receive
        self._wanted = asyncio.Event()
        self.is_read = not any(
            name == b"transfer-encoding" or (name == b"content-length" and value not in _NO_LENGTH)
            for name, value in headers
        )
        if self.is_read:  # Only a disconnect can follow, and Ray waits for it.
            self._wanted.set()

    def want(self) -> None:
        self._wanted.set()

    def hold(self) -> None:
        """Stop delivering a body that is not read to its end."""
        if not self.is_read:
            self._wanted.clear()

    async def drop_rest(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while (await self._receive()).get("more_body", False):
                    pass

    async def receive(self) -> Message:
        await self._wanted.wait()
        message = await self._receive()
        if message["type"] == "http.request" and not message.get("more_body", False):
            self.is_read = True
        return message


def _accepted(headers: Headers) -> Iterator[tuple[bytes, bytes]]:
    for name, value in headers:
        passes = CHECKED_HEADERS.get(name.replace(b"_", b"-"))
        if name.isascii() and (passes is None or passes(value)):
            yield name, value


def _name(scope: Scope) -> None:
    if REQUEST_ID not in dict(scope["headers"]):
        scope[OWN_ID_KEY] = own = random_request_id()
        scope["headers"].append((REQUEST_ID, own.encode()))


def _status(path: str, status: int) -> int:
    leaving = path == HEALTH_PATH and status == HTTPStatus.SERVICE_UNAVAILABLE
    return HTTPStatus.NOT_FOUND if leaving else status


def _added_headers(body: _Body) -> Iterator[tuple[bytes, bytes]]:
    yield b"x-content-type-options", b"nosniff"
    if not body.is_read:
        yield b"connection", b"close"
