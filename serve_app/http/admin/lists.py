"""The paginated admin lists: tenants, keys, grants and the audit log. All share one endpoint."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from serve_app.access.api_keys import SCOPE_ADMIN
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
from serve_app.ledger.accounts.tenant_accounts import Tenant, find_tenant, list_tenants
from serve_app.ledger.accounts.tenant_keys import Key, list_keys
from serve_app.ledger.db.audit_log import AuditEntry, read_entries
from serve_app.ledger.db.engines import Connection
from serve_app.protocols.admin import AuditEntryList, GrantList, KeyList, TenantList, parse_list
from serve_app.protocols.paging import Place, cut, read_cursor, read_limit, write_cursor

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Wanted:
    """The part of a list to read."""

    tenant: TenantId | None
    after: Any
    """Place of the last row of the previous page, or ``None`` for the first page."""

    count_max: int


@dataclass(frozen=True, slots=True)
class Listing(Generic[Row]):
    """How to read, order and render one list."""

    name: str
    kinds: Sequence[type[str] | type[int]]
    """Types of the values in a row's place."""

    read: Callable[[Connection, Wanted], Sequence[Row]]
    place: Callable[[Row], Place]
    render: Callable[[Sequence[Row], str | None], str]
    """Render a page of rows, with the cursor of the next page, as JSON."""

    of_tenant: bool = True
    """Whether the parameter ``tenant`` may filter the rows."""

    tenant_needed: bool = False


def list_endpoint(service: Service, listing: Listing[Row]) -> Endpoint:
    async def answer(request: Request) -> Response:
        await service.access.authenticate(sent_keys(request.headers), SCOPE_ADMIN)
        names = ("tenant",) if listing.of_tenant else ()
        values = parse_list(request.query_params.multi_items(), *names)
        limit = read_limit(values.get("limit"))
        after = read_cursor(values.get("cursor"), listing.name, listing.kinds)
        if listing.tenant_needed and "tenant" not in values:
            raise InvalidRequest("tenant", "is required")

        def query(connection: Connection) -> Sequence[Row]:
            tenant = _tenant(connection, values)
            return listing.read(connection, Wanted(tenant, after, limit + 1))

        with as_client_errors():
            rows, has_more = cut(await service.office.read(query), limit)
        cursor = write_cursor(listing.name, listing.place(rows[-1])) if has_more else None
        return Response(listing.render(rows, cursor), media_type="application/json")

    return answer


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


def _read_audit_log(connection: Connection, wanted: Wanted) -> list[AuditEntry]:
    (last,) = wanted.after or (0,)
    return read_entries(connection, wanted.tenant, after=last, count_max=wanted.count_max)


def _tenants(rows: Sequence[Tenant], cursor: str | None) -> str:
    data = [tenant_object(row) for row in rows]
    return TenantList(data=data, has_more=cursor is not None, next_cursor=cursor).model_dump_json()


def _keys(rows: Sequence[Key], cursor: str | None) -> str:
    data = [key_object(row) for row in rows]
    return KeyList(data=data, has_more=cursor is not None, next_cursor=cursor).model_dump_json()


def _grants(rows: Sequence[Grant], cursor: str | None) -> str:
    data = [grant_object(row) for row in rows]
    return GrantList(data=data, has_more=cursor is not None, next_cursor=cursor).model_dump_json()


def _audit_log(rows: Sequence[AuditEntry], cursor: str | None) -> str:
    data = [audit_entry_object(row) for row in rows]
    return AuditEntryList(
        data=data, has_more=cursor is not None, next_cursor=cursor
    ).model_dump_json()


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
