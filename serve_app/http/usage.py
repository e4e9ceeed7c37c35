"""``GET /v1/usage`` of the own tenant, and ``GET /admin/v1/usage`` of one tenant or all."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from serve_app.access.api_keys import SCOPE_ADMIN, SCOPES
from serve_app.domain.formats import write_day
from serve_app.domain.units import Moment
from serve_app.domain.usage import UsageSums
from serve_app.http.admin.objects import as_client_errors
from serve_app.http.error_boundary import Endpoint
from serve_app.http.headers import sent_keys
from serve_app.http.service import Service
from serve_app.ledger.accounts.tenant_accounts import find_tenant
from serve_app.ledger.db.engines import Connection
from serve_app.ledger.reports.usage import Grouping, UsageFilter, UsageRow, usage
from serve_app.protocols.paging import cut
from serve_app.protocols.usage import (
    ALL_GROUPS,
    CSV_TYPE,
    DAY,
    OWN_GROUPS,
    TenantUsageList,
    TenantUsageObject,
    UsageList,
    UsageObject,
    UsageQuery,
    next_cursor,
    parse_usage,
    render_csv,
)

CURSOR_HEADER = "x-next-cursor"


def usage_endpoints(service: Service) -> tuple[Endpoint, Endpoint]:
    async def own(request: Request) -> Response:
        caller = await service.access.authenticate(sent_keys(request.headers), *SCOPES)
        query = _query(request, OWN_GROUPS)
        which = replace(_filter(query, service), tenant=caller.tenant)
        with service.report_places.take(caller):
            return await service.office.read(partial(_own, query=query, which=which))

    async def of_all_tenants(request: Request) -> Response:
        await service.access.authenticate(sent_keys(request.headers), SCOPE_ADMIN)
        query = _query(request, ALL_GROUPS)
        with as_client_errors():
            read = partial(_of_all_tenants, query=query, which=_filter(query, service))
            return await service.office.read(read)

    return own, of_all_tenants


def _query(request: Request, groups: Sequence[str]) -> UsageQuery:
    accept = request.headers.get("accept", "")
    return parse_usage(request.query_params.multi_items(), accept, groups)


def _filter(query: UsageQuery, service: Service) -> UsageFilter:
    model = None if query.model is None else service.model_names.resolve(query.model)
    return UsageFilter(None, query.since, query.until, model, query.key)


# These two run in a thread of the office, because there may be many rows.
def _own(connection: Connection, query: UsageQuery, which: UsageFilter) -> Response:
    rows, cursor = _page(connection, query, which)
    data = [UsageObject.model_validate(_fields(query, row)) for row in rows]
    if query.as_csv:
        return _csv(render_csv(UsageObject, data), cursor)
    page = UsageList(data=data, has_more=cursor is not None, next_cursor=cursor)
    return Response(page.model_dump_json(), media_type="application/json")


def _of_all_tenants(connection: Connection, query: UsageQuery, which: UsageFilter) -> Response:
    if query.tenant is not None:
        which = replace(which, tenant=find_tenant(connection, query.tenant).id)
    rows, cursor = _page(connection, query, which)
    data = [TenantUsageObject.model_validate(_fields(query, row)) for row in rows]
    if query.as_csv:
        return _csv(render_csv(TenantUsageObject, data), cursor)
    page = TenantUsageList(data=data, has_more=cursor is not None, next_cursor=cursor)
    return Response(page.model_dump_json(), media_type="application/json")


def _page(
    connection: Connection, query: UsageQuery, which: UsageFilter
) -> tuple[Sequence[UsageRow], str | None]:
    by = [Grouping(name) for name in query.group_by]
    found = usage(connection, which, *by, after=query.after, count_max=query.limit + 1)
    rows, has_more = cut(found, query.limit)
    return rows, next_cursor(query, rows[-1].group) if has_more else None


def _fields(query: UsageQuery, row: UsageRow) -> Mapping[str, object]:
    groups = dict(zip(query.group_by, row.group, strict=True))
    if DAY in groups:
        groups[DAY] = write_day(Moment(int(groups[DAY])))
    latencies = {"latency_ms_p50": row.latency_ms_p50, "latency_ms_p95": row.latency_ms_p95}
    return {**groups, **usage_counts(row), **latencies}


def usage_counts(sums: UsageSums) -> dict[str, int]:
    counts = sums.counts()
    errors = counts.pop("requests_not_charged")
    return counts | {"errors": errors, "charged_micro_dollars": sums.charged}


def _csv(body: bytes, cursor: str | None) -> Response:
    headers = {} if cursor is None else {CURSOR_HEADER: cursor}
    return Response(body, headers=headers, media_type=f"{CSV_TYPE}; charset=utf-8")
