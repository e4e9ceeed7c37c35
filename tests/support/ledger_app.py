"""A test application with keys and accounts in a real SQLite ledger."""

from collections.abc import Mapping
from dataclasses import replace

import httpx
from starlette.types import ASGIApp

from serve_app.access import api_keys
from serve_app.access.authenticator import Authenticator
from serve_app.domain.model import UNLIMITED, RateLimits
from serve_app.domain.units import (
    Credits,
    KeyId,
    ModelId,
    Moment,
    RequestId,
    Seconds,
    TenantId,
    Tokens,
)
from serve_app.http.app import build_app
from serve_app.ledger.accounts import credit_grants, tenant_accounts, tenant_keys
from serve_app.ledger.back_office import BackOffice
from serve_app.ledger.db.audit_log import AuditContext
from serve_app.ledger.db.engines import transaction
from serve_app.ledger.money.reservation import Reservation
from serve_app.ledger.posting.rate_limits import Demand
from serve_app.ledger.sql_ledger import SqlLedger
from serve_app.ports import Usage
from tests.support import postings
from tests.support.app import FakeApp
from tests.support.fakes import FakeClock

TIMEOUT_S = Seconds(5)
FREE_CREDIT = Credits(7)


class LedgerApp:
    """An application with the tenant acme, which has 1,000 micro-dollars and two keys: ``key`` for
    reranking and ``admin`` for accounts.

    The database must have empty tables. ``app`` has the other ports; it is closed with this one.
    """

    def __init__(
        self, database_url: str, app: FakeApp | None = None, clock: FakeClock | None = None
    ) -> None:
        self.database_url = database_url
        self.clock = clock or FakeClock()
        self.audit = AuditContext("tester", self.clock.moment())
        self.tenant = self.add_tenant("acme", 1_000)
        self.key_id, self.key = self.add_key(self.tenant, api_keys.SCOPE_RERANK)
        self.admin_id, self.admin = self.add_key(self.tenant, api_keys.SCOPE_ADMIN)
        self.ledger = SqlLedger(database_url, self.clock, Seconds(30))
        self._office = BackOffice(database_url, TIMEOUT_S)
        self._app = app or FakeApp()
        service = self._app.service
        self.service = replace(
            service,
            pipeline=replace(service.pipeline, ledger=self.ledger, clock=self.clock),
            access=Authenticator(self.ledger, self.clock, service.metrics, Seconds(0)),
            office=self._office,
            clock=self.clock,
            free_credit=FREE_CREDIT,
        )
        self._app.asgi = build_app(self.service)

    @property
    def asgi(self) -> ASGIApp:
        return self._app.asgi

    def close(self) -> None:
        self._office.close()
        self.ledger.close()
        self._app.close()

    def add_tenant(self, name: str, credit: int) -> TenantId:
        with transaction(self.database_url, TIMEOUT_S) as connection:
            tenant = tenant_accounts.create_tenant(connection, name, self.audit).id
            credit_grants.grant(connection, tenant, Credits(credit), "test", self.audit)
        return tenant

    def add_key(
        self, tenant: TenantId, *scopes: str, limits: RateLimits = UNLIMITED
    ) -> tuple[KeyId, str]:
        key = api_keys.generate()
        new = tenant_keys.NewKey(
            key.key_id, key.secret_sha256, "test", set(scopes), None, None, limits
        )
        with transaction(self.database_url, TIMEOUT_S) as connection:
            tenant_keys.create_key(connection, tenant, new, self.audit)
        return key.key_id, key.reveal()

    def revoke(self, key_id: KeyId) -> None:
        with transaction(self.database_url, TIMEOUT_S) as connection:
            tenant_keys.revoke_key(connection, key_id, self.audit)

    def settle(
        self,
        request_id: str,
        at: int,
        amount: int = 8,
        *,
        charged: bool = True,
        model: str = "mini",
        of: tuple[TenantId, KeyId] | None = None,
    ) -> None:
        """Store a request of one document and ten tokens that ends at ``at``, by default acme's.

        It took 100 ms.
        """
        moment = Moment(at)
        wanted = Reservation(
            RequestId(request_id),
            *(of or (self.tenant, self.key_id)),
            ModelId(model),
            Credits(amount),
            Moment(at - 100),
            moment,
        )
        usage = Usage(1, Tokens(10))
        with transaction(self.database_url, TIMEOUT_S) as connection:
            postings.reserve(connection, wanted)
            if charged:
                postings.commit(connection, wanted.request_id, wanted.amount, usage, moment)
            else:
                postings.void(connection, wanted.request_id, usage, moment)

    def reserve(self, request_id: str, key_id: KeyId, *, documents: int, amount: int) -> None:
        """Store the reservation of a running request, and count it towards its limits."""
        with transaction(self.database_url, TIMEOUT_S) as connection:
            caller = tenant_keys.find_keys(connection, [key_id])[key_id].caller
        now = self.clock.moment()
        wanted = Reservation(
            RequestId(request_id),
            caller.tenant,
            key_id,
            ModelId("mini"),
            Credits(amount),
            now,
            Moment(now + 60_000),
            key_capped=caller.key_limits.monthly_budget_micro_dollars is not None,
        )
        demand = Demand(documents, caller.key_limits, caller.tenant_limits)
        with transaction(self.database_url, TIMEOUT_S) as connection:
            postings.reserve(connection, wanted, demand)

    def get(
        self, path: str, *, key: str | None = None, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """Send a GET request, with the administrator's key by default."""
        return self._app.send("GET", path, key=key or self.admin, headers=headers)

    def post(
        self,
        path: str,
        body: object = None,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        method: str = "POST",
    ) -> httpx.Response:
        return self._app.send(method, path, key=key or self.admin, headers=headers, body=body)

    def patch(self, path: str, body: object) -> httpx.Response:
        return self.post(path, body, method="PATCH")
