"""``GET /v1/statements/{month}``, and the administrators' ``GET /admin/v1/statements/{month}``.

The first is for the key's own tenant, the second for any. The statement of an incomplete month
covers the time until now or the month's end.
"""

from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response

from serve_app.access.api_keys import SCOPE_ADMIN, SCOPE_MANAGE
from serve_app.domain.errors import InvalidRequest
from serve_app.domain.formats import write_day, write_moment
from serve_app.http.admin.objects import as_client_errors, grant_object
from serve_app.http.error_boundary import Endpoint
from serve_app.http.headers import sent_keys
from serve_app.http.service import Service
from serve_app.http.usage import usage_counts
from serve_app.ledger.accounts.own_keys import with_own_authors
from serve_app.ledger.accounts.tenant_accounts import find_tenant
from serve_app.ledger.db.engines import Connection
from serve_app.ledger.reports.monthly_statement import (
    DayOfModel,
    Statement,
    month_name,
    render_csv,
    render_html,
    statement,
)
from serve_app.protocols.statements import (
    CSV,
    HTML,
    HTML_TYPE,
    StatementObject,
    parse_month,
    parse_statement,
)
from serve_app.protocols.usage import CSV_TYPE, UsageCountsObject


def statement_endpoints(service: Service) -> dict[str, dict[str, Endpoint]]:
    async def own(request: Request) -> Response:
        caller = await service.access.authenticate(sent_keys(request.headers), SCOPE_MANAGE)
        form, _ = parse_statement(request.query_params.multi_items(), _accept(request))
        month, now = parse_month(request.path_params["month"]), service.clock.moment()

        def query(connection: Connection) -> Response:
            tenant = find_tenant(connection, caller.tenant)
            found = statement(connection, tenant, month, now, so_far=True)
            changes = with_own_authors(connection, caller.tenant, found.changes)
            return _answer(replace(found, changes=tuple(changes)), form)

        with service.report_places.take(caller), as_client_errors():
            return await service.office.read(query)

    async def of_any_tenant(request: Request) -> Response:
        await service.access.authenticate(sent_keys(request.headers), SCOPE_ADMIN)
        parameters = request.query_params.multi_items()
        form, values = parse_statement(parameters, _accept(request), "tenant")
        month, now = parse_month(request.path_params["month"]), service.clock.moment()
        if "tenant" not in values:
            raise InvalidRequest("tenant", "is required")

        def query(connection: Connection) -> Response:
            tenant = find_tenant(connection, values["tenant"])
            return _answer(statement(connection, tenant, month, now, so_far=True), form)

        with as_client_errors():
            return await service.office.read(query)

    return {
        "/v1/statements/{month}": {"GET": own},
        "/admin/v1/statements/{month}": {"GET": of_any_tenant},
    }


def _accept(request: Request) -> str:
    return request.headers.get("accept", "")


def _answer(found: Statement, form: str) -> Response:
    if form == CSV:
        return _file(render_csv(found), found, form, CSV_TYPE)
    if form == HTML:
        return _file(render_html(found), found, form, HTML_TYPE)
    return Response(_object(found).model_dump_json(), media_type="application/json")


def _file(text: str, found: Statement, form: str, media_type: str) -> Response:
    """Return a download: a browser must not show it as a page of this origin."""
    name = f"statement-{month_name(found.month)}.{form}"
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return Response(text, headers=headers, media_type=media_type)


def _object(found: Statement) -> StatementObject:
    return StatementObject(
        tenant=found.tenant.id,
        tenant_name=found.tenant.name,
        month=month_name(found.month),
        so_far=found.so_far,
        until=write_moment(found.until),
        opening_micro_dollars=found.opening,
        granted_micro_dollars=found.changed,
        charged_micro_dollars=found.charged,
        closing_micro_dollars=found.closing,
        grants=[grant_object(each) for each in found.changes],
        usage=[_usage(each) for each in found.usage],
    )


def _usage(day: DayOfModel) -> UsageCountsObject:
    return UsageCountsObject.model_validate(
        {"day": write_day(day.day), "model": day.model} | usage_counts(day.sums)
    )
