"""Gateways that die or stop at a given point of a request, with a real HTTP server and ledger.

python -m tests.chaos.keyed_gateway DATABASE_URL TENANT KEY_ID

Reads lines ``PORT POINT`` and forks a gateway for each, which takes little time, because the
application is already built. When its input ends, it kills its process group.
"""

import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.domain.clock import SystemClock
from serve_app.domain.model import Caller
from serve_app.domain.units import Credits, KeyId, RequestId, Seconds, TenantId
from serve_app.http.app import build_app
from serve_app.http.request_ids import random_request_id
from serve_app.ledger.sql_ledger import SqlLedger
from serve_app.ledger.writer.limits import LedgerLimits
from serve_app.ports import StoredOutcome, Usage
from tests.support.app import FakeApp

NEVER, RESERVED, CHARGED, HEADERS, HALF = "never", "reserved", "charged", "headers", "half"
"""Points of a request: `HEADERS` and `HALF` are after these bytes of the answer."""

PAUSE_HEADER = "x-chaos-pause"
"""With this header, a gateway sends half of the body and waits for the client to disconnect."""

MARGIN_S = Seconds(0.5)
LIMITS = LedgerLimits(expiry_interval_s=Seconds(0.1))


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class DyingLedger(SqlLedger):
    """Kills the process before or after a charge."""

    point = NEVER

    async def commit(
        self,
        request_id: RequestId,
        amount: Credits,
        usage: Usage,
        stored: StoredOutcome | None = None,
    ) -> None:
        if self.point == RESERVED:
            die()
        await super().commit(request_id, amount, usage, stored)
        if self.point == CHARGED:
            die()


class OneCaller:
    """Accepts every API key."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def authenticate(self, api_keys: Sequence[str], *scopes: str) -> Caller:
        return self._caller


class DyingAnswers:
    """ASGI middleware that kills the process, or waits, within an answer."""

    def __init__(self, app: ASGIApp, point: str) -> None:
        self._app = app
        self._point = point

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        pauses = any(name == PAUSE_HEADER.encode() for name, _ in scope.get("headers", ()))

        async def send_in_parts(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                if self._point == HEADERS:
                    die()
                return
            body = message.get("body", b"")
            half = len(body) // 2
            await send({"type": "http.response.body", "body": body[:half], "more_body": True})
            if self._point == HALF:
                die()
            while pauses and (await receive())["type"] != "http.disconnect":
                pass
            await send({**message, "body": body[half:]})

        await self._app(scope, receive, send_in_parts)


def main() -> None:
    database_url, tenant, key_id = sys.argv[1:]
    ledger = DyingLedger(database_url, SystemClock(), MARGIN_S, LIMITS)
    service = FakeApp().service
    service = replace(
        service,
        pipeline=replace(service.pipeline, ledger=ledger),
        access=OneCaller(Caller(TenantId(tenant), KeyId(key_id), frozenset({"rerank"}), None)),
        new_request_id=random_request_id,
    )
    app = build_app(service)
    uvicorn.Config(app).load()  # Imports the server's parts before the forks.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # Leaves no zombies.
    for line in sys.stdin:
        port, ledger.point = line.split()
        if not os.fork():
            ledger.start()
            dying = DyingAnswers(app, ledger.point)
            uvicorn.run(dying, host="127.0.0.1", port=int(port), lifespan="off", log_level="error")
            os._exit(0)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
