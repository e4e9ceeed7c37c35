"""The paginated lists of accounts, for administrators and of a tenant's own rows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Self, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from serve_app.access.api_keys import SCOPE_ADMIN, SCOPE_MANAGE
from serve_app.domain.errors import InvalidRequest
from serve_app.domain.units import TenantId
from serve_app.http.admin.objects import (
    as_client_errors,
    audit_entry_object,
    grant_object,
    key_object,
    tenant_object,
)
from serve_app.http.error_boundary import Endpoint
from serve_app.http.headers import sent_keys
from serve_app.http.service import Service
from serve_app.ledger.accounts.credit_grants import Grant, list_grants
from serve_app.ledger.accounts.own_keys import with_own_authors
from serve_app.ledger.accounts.tenant_accounts import Tenant, find_tenant, list_tenants
from serve_app.ledger.accounts.tenant_keys import Key, list_keys
from serve_app.ledger.db.audit_log import AuditEntry, read_entries
from serve_app.ledger.db.engines import Connection
from serve_app.protocols.admin import AuditEntryList, GrantList, KeyList, TenantList, parse_list
from serve_app.protocols.paging import Page, Place, cut, read_cursor, read_limit, write_cursor

Row = TypeVar("Row")
PageOf = TypeVar("PageOf", bound=Page)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The part of a list to read."""

    tenant: TenantId | None
    after: Any
    """Place of the previous page's last row; ``None`` for the first page."""

    count_max: int


@dataclass(frozen=True, slots=True)
class Listing(Generic[Row, PageOf]):
    """How to read, order and render one list."""

    name: str
    kinds: Sequence[type[str] | type[int]]
    """Types of the values in a place."""

    read: Callable[[Connection, Wanted], Sequence[Row]]
    place: Callable[[Row], Place]
    page: Callable[[Sequence[Row], str | None], PageOf]
    of_tenant: bool = True
    """Whether ``tenant`` may filter the rows."""

    tenant_needed: bool = False


@dataclass(frozen=True, slots=True)
class Asked(Generic[Row, PageOf]):
    """A request for a page."""

    listing: Listing[Row, PageOf]
    after: Place | None
    limit: int

    @classmethod
    def of(cls, listing: Listing[Row, PageOf], values: Mapping[str, str]) -> Self:
        """Raises: InvalidRequest."""
        return cls(
            listing,
            read_cursor(values.get("cursor"), listing.name, listing.kinds),
            read_limit(values.get("limit")),
        )

    def rows(self, connection: Connection, tenant: TenantId | None) -> Sequence[Row]:
        """Return the rows of the page, and one more if there is another page."""
        return self.listing.read(connection, Wanted(tenant, self.after, self.limit + 1))

    def page(self, found: Sequence[Row]) -> PageOf:
        rows, has_more = cut(found, self.limit)
        last = self.listing.place(rows[-1]) if has_more else None
        cursor = None if last is None else write_cursor(self.listing.name, last)
        return self.listing.page(rows, cursor)


def list_endpoint(service: Service, listing: Listing[Row, PageOf]) -> Endpoint:
    async def answer(request: Request) -> Response:
        await service.access.authenticate(sent_keys(request.headers), SCOPE_ADMIN)
        names = ("tenant",) if listing.of_tenant else ()
        values = parse_list(request.query_params.multi_items(), *names)
        asked = Asked.of(listing, values)
        if listing.tenant_needed and "tenant" not in values:
            raise InvalidRequest("tenant", "is required")

        def query(connection: Connection) -> Sequence[Row]:
            return asked.rows(connection, _tenant(connection, values))

        with as_client_errors():
            found = await service.office.read(query)
        return _answer(asked.page(found))

    return answer


def own_list_endpoint(service: Service, listing: Listing[Row, PageOf]) -> Endpoint:
    async def answer(request: Request) -> Response:
        caller = await service.access.authenticate(sent_keys(request.headers), SCOPE_MANAGE)
        asked = Asked.of(listing, parse_list(request.query_params.multi_items()))
        with service.report_places.take(caller):
            found = await service.office.read(
                lambda connection: asked.rows(connection, caller.tenant)
            )
        return _answer(asked.page(found))

    return answer


def _answer(page: Page) -> Response:
    return Response(page.model_dump_json(), media_type="application/json")


def _tenant(connection: Connection, values: Mapping[str, str]) -> TenantId | None:
    return find_tenant(connection, values["tenant"]).id if "tenant" in values else None


def _read_tenants(connection: Connection, wanted: Wanted) -> list[Tenant]:
    (name,) = wanted.after or ("",)
    return list_tenants(connection, after=name, count_max=wanted.count_max)


def _read_keys(connection: Connection, wanted: Wanted) -> list[Key]:
    return list_keys(connection, wanted.tenant, after=wanted.after, count_max=wanted.count_max)


def _read_grants(connection: Connection, wanted: Wanted) -> list[Grant]:
    assert wanted.tenant is not None
    return list_grants(connection, wanted.tenant, after=wanted.after, count_max=wanted.count_max)


def _read_own_audit_log(connection: Connection, wanted: Wanted) -> list[AuditEntry]:
    assert wanted.tenant is not None
    return with_own_authors(connection, wanted.tenant, _read_audit_log(connection, wanted))


def _read_own_grants(connection: Connection, wanted: Wanted) -> list[Grant]:
    assert wanted.tenant is not None
    return with_own_authors(connection, wanted.tenant, _read_grants(connection, wanted))


def _read_audit_log(connection: Connection, wanted: Wanted) -> list[AuditEntry]:
    (last,) = wanted.after or (0,)
    return read_entries(connection, wanted.tenant, after=last, count_max=wanted.count_max)


def _tenants(rows: Sequence[Tenant], cursor: str | None) -> TenantList:
    data = [tenant_object(row) for row in rows]
    return TenantList(data=data, has_more=cursor is not None, next_cursor=cursor)


def _keys(rows: Sequence[Key], cursor: str | None) -> KeyList:
    data = [key_object(row) for row in rows]
    return KeyList(data=data, has_more=cursor is not None, next_cursor=cursor)


def _grants(rows: Sequence[Grant], cursor: str | None) -> GrantList:
    data = [grant_object(row) for row in rows]
    return GrantList(data=data, has_more=cursor is not None, next_cursor=cursor)


def _audit_log(rows: Sequence[AuditEntry], cursor: str | None) -> AuditEntryList:
    data = [audit_entry_object(row) for row in rows]
    return AuditEntryList(data=data, has_more=cursor is not None, next_cursor=cursor)


TENANTS = Listing(
    "tenants", [str], _read_tenants, lambda row: (row.name,), _tenants, of_tenant=False
)
KEYS = Listing(
    "keys", [int, str], _read_keys, lambda row: (row.created_at, row.stored.caller.key_id), _keys
)
GRANTS = Listing(
    "grants",
    [int, str],
    _read_grants,
    lambda row: (row.created_at, row.id),
    _grants,
    tenant_needed=True,
)
AUDIT_LOG = Listing("audit-log", [int], _read_audit_log, lambda row: (row.id,), _audit_log)
OWN_GRANTS = replace(GRANTS, read=_read_own_grants)
OWN_AUDIT_LOG = replace(AUDIT_LOG, read=_read_own_audit_log)
"""The lists for tenants, without the names of operators."""
