"""Names every request, and puts the name on every answer as ``x-request-id``.

Plain ASGI rather than Starlette's `BaseHTTPMiddleware`, which hides a client's hang-up from the
routes below it.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.domain.units import RequestId

HEADER = "x-request-id"

_SCOPE_KEY = "serve_app.request_ids"
ACCEPTED_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
"""A client's own request id, if it is to be used in answers and logs."""


@dataclass(frozen=True, slots=True)
class RequestIds:
    """Two names: ours, which the ledger trusts, and the one the client knows."""

    own: RequestId
    shown: str


def request_ids(request: Request) -> RequestIds:
    """The names that `NamesRequests` gave."""
    ids: RequestIds = request.scope[_SCOPE_KEY]
    return ids


class NamesRequests:
    """ASGI middleware. ``add_header`` is off where the server names answers itself, as Ray does:
    a header that stands twice reads as "a, a"."""

    def __init__(
        self, app: ASGIApp, new_request_id: Callable[[], RequestId], *, add_header: bool
    ) -> None:
        self._app = app
        self._new_request_id = new_request_id
        self._add_header = add_header

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as the inner app does, with one header more."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        own = self._new_request_id()
        inbound = Headers(scope=scope).get(HEADER, "")
        shown = inbound if ACCEPTED_ID.fullmatch(inbound) else own
        scope[_SCOPE_KEY] = RequestIds(own, shown)

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start" and self._add_header:
                MutableHeaders(scope=message)[HEADER] = shown
            await send(message)

        await self._app(scope, receive, send_named)
