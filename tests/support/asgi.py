"""Drive an ASGI application message by message, in ways that HTTP clients do not support."""

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp, Message, Scope

KEY = {"authorization": "Bearer rk-good"}


@dataclass
class Exchange:
    """One request with a body of the given chunks, of which the last one ends it.

    Once the chunks are read, the client stays connected until ``disconnect`` is called.
    """

    chunks: Iterable[bytes] = ()
    headers: dict[str, str] = field(default_factory=lambda: dict(KEY))
    path: str = "/v1/rerank"
    complete: bool = True

    def __post_init__(self) -> None:
        self._unread = list(self.chunks)
        self._gone = asyncio.Event()
        self.read = 0
        self.sent: list[Message] = []

    def disconnect(self) -> None:
        self._gone.set()

    async def run(self, app: ASGIApp) -> None:
        await app(self._scope(), self._receive, self._send)

    @property
    def status(self) -> int:
        status: int = self.sent[0]["status"]
        return status

    @property
    def answer_headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def answer(self) -> Any:
        return json.loads(b"".join(message.get("body", b"") for message in self.sent))

    def _scope(self) -> Scope:
        return {
            "type": "http",
            "http_version": "1.1",
            "method": "POST",
            "path": self.path,
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in self.headers.items()],
        }

    async def _receive(self) -> Message:
        if self._unread:
            self.read += 1
            chunk = self._unread.pop(0)
            more = bool(self._unread) or not self.complete
            return {"type": "http.request", "body": chunk, "more_body": more}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self.sent.append(message)
