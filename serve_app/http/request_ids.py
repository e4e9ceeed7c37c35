"""Assign an id to every request and return it in the header ``x-request-id``.

Starlette's `BaseHTTPMiddleware` would hide a client's disconnect from the routes.
"""

import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.domain.units import RequestId

HEADER = "x-request-id"

OWN_ID_KEY = "serve_app.own_request_id"
"""Key of an ASGI scope under which `serve_app.http.inbound` passes an id that it made."""

_SCOPE_KEY = "serve_app.request_ids"
ACCEPTED_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
"""A client's id that responses and logs may contain."""


@dataclass(frozen=True, slots=True)
class RequestIds:
    """The service's own id, for the ledger, and the one shown to the client."""

    own: RequestId
    shown: str


def random_request_id() -> RequestId:
    return RequestId(f"rr_{uuid.uuid4().hex}")


def request_ids(request: Request) -> RequestIds:
    ids: RequestIds = request.scope[_SCOPE_KEY]
    return ids


class NamesRequests:
    """Plain ASGI middleware that assigns request ids.

    ``add_header`` must be off if the server adds the header, as Ray does: clients read a duplicate
    as "a, a".
    """

    def __init__(
        self, app: ASGIApp, new_request_id: Callable[[], RequestId], *, add_header: bool
    ) -> None:
        self._app = app
        self._new_request_id = new_request_id
        self._add_header = add_header

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        own = scope.get(OWN_ID_KEY) or self._new_request_id()
        inbound = Headers(scope=scope).get(HEADER, "")
        shown = inbound if ACCEPTED_ID.fullmatch(inbound) else own
        scope[_SCOPE_KEY] = RequestIds(own, shown)

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start" and self._add_header:
                MutableHeaders(scope=message)[HEADER] = shown
            await send(message)

        await self._app(scope, receive, send_named)
