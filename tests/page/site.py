"""The service behind the page in tests, and what the browser complains about."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import BrowserContext, ConsoleMessage, Request

from serve_app.access.api_keys import SCOPE_MANAGE, SCOPE_RERANK
from serve_app.domain.clock import SystemClock
from serve_app.domain.model import UNLIMITED, RateLimits
from serve_app.domain.units import Instant, Moment
from serve_app.ledger.db.schema import migrate
from tests.support.app import FakeApp
from tests.support.fakes import FakeClock
from tests.support.http_server import listening
from tests.support.ledger_app import LedgerApp

CREDIT = 5_000_000


class WallClock(FakeClock):
    """The real clock where tests usually have one that stands still."""

    def instant(self) -> Instant:
        return SystemClock().instant()

    def moment(self) -> Moment:
        return SystemClock().moment()


@dataclass
class Site:
    """A running service with a tenant, whose ``key`` may rank and manage."""

    app: LedgerApp
    address: str
    key: str

    @classmethod
    @contextmanager
    def started(cls, folder: Path, app: FakeApp) -> "Iterator[Site]":
        """Run the service with a ledger in ``folder``; ``app`` has the other ports."""
        url = f"sqlite:///{folder / 'rerank.db'}"
        migrate(url)
        ledger = LedgerApp(url, app, app.clock)
        try:
            ledger.ledger.start()
            with listening(ledger.asgi) as address:
                site = cls(ledger, address, "")
                site.key = site.new_key("Acme Search", CREDIT, SCOPE_RERANK, SCOPE_MANAGE)
                yield site
        finally:
            ledger.close()

    def new_key(self, name: str, credit: int, *scopes: str, limits: RateLimits = UNLIMITED) -> str:
        """Create a tenant with this credit in micro-dollars, and return a key of it."""
        tenant = self.app.add_tenant(name, credit)
        _, key = self.app.add_key(tenant, *scopes, limits=limits)
        return key


class Violations:
    """Errors in the console of any page of a context, such as violations of the policy, and
    requests to other addresses than ``address``."""

    def __init__(self, context: BrowserContext, address: str) -> None:
        self.found: list[str] = []
        self._own = (f"{address}/", f"blob:{address}/")
        context.on("request", self._note_request)
        context.on("console", self._note)
        context.on("weberror", lambda error: self.found.append(str(error.error)))

    def _note_request(self, request: Request) -> None:
        if not request.url.startswith(self._own):
            self.found.append(request.url)

    def _note(self, message: ConsoleMessage) -> None:
        # Chromium reports every answer above 399 as an error; the page shows those itself.
        if message.type == "error" and not message.text.startswith("Failed to load resource"):
            self.found.append(message.text)
