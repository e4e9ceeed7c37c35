"""The ``/admin/v1`` routes: the account operations of the command line, for operators' programs."""

from starlette.requests import Request
from starlette.responses import Response

from serve_app.access import api_keys
from serve_app.domain.units import Credits, KeyId, RequestId, Seconds
from serve_app.http.accounts import (
    AccountRoutes,
    change_key,
    create_key,
    json_response,
    limit_changes,
    new_key,
    path_id,
    revoke_key,
    rotate_key,
)
from serve_app.http.admin.lists import AUDIT_LOG, GRANTS, KEYS, TENANTS, list_endpoint
from serve_app.http.admin.objects import (
    grant_object,
    key_object,
    new_key_object,
    tenant_object,
)
from serve_app.http.admin.status import status_endpoint
from serve_app.http.error_boundary import Endpoint
from serve_app.http.headers import IDEMPOTENCY_HEADER
from serve_app.http.service import Service
from serve_app.ledger.accounts import credit_grants, tenant_accounts, tenant_keys
from serve_app.ledger.db.audit_log import AuditContext
from serve_app.ledger.db.engines import Connection
from serve_app.protocols.admin import (
    CreditCreate,
    KeyChange,
    KeyCreate,
    KeyRotation,
    Once,
    RefundCreate,
    TenantChange,
    TenantCreate,
    parse_body,
    parse_once,
    setting_changes,
)


def admin_endpoints(service: Service) -> dict[str, dict[str, Endpoint]]:
    admin = _Admin(service)
    return {
        "/admin/v1/tenants": {
            "GET": list_endpoint(service, TENANTS),
            "POST": admin.create_tenant,
        },
        "/admin/v1/tenants/{id}": {"GET": admin.get_tenant, "PATCH": admin.change_tenant},
        "/admin/v1/keys": {"GET": list_endpoint(service, KEYS), "POST": admin.create_key},
        "/admin/v1/keys/{id}": {"GET": admin.get_key, "PATCH": admin.change_key},
        "/admin/v1/keys/{id}/rotate": {"POST": admin.rotate_key},
        "/admin/v1/keys/{id}/revoke": {"POST": admin.revoke_key},
        "/admin/v1/credit": {"GET": list_endpoint(service, GRANTS), "POST": admin.add_credit},
        "/admin/v1/credit/refunds": {"POST": admin.refund},
        "/admin/v1/audit-log": {"GET": list_endpoint(service, AUDIT_LOG)},
        "/admin/v1/status": {"GET": status_endpoint(service)},
    }


class _Admin(AccountRoutes):
    def __init__(self, service: Service) -> None:
        super().__init__(service, api_keys.SCOPE_ADMIN)

    async def create_tenant(self, request: Request) -> Response:
        audit = await self._audit(request)
        wanted = parse_body(TenantCreate, await self._body(request))
        amount = wanted.credit_micro_dollars
        credit = credit_grants.first_credit(
            None if amount is None else Credits(amount), self._service.free_credit
        )

        settings = setting_changes(wanted)

        def change(connection: Connection) -> tenant_accounts.Tenant:
            made = credit_grants.open_account(connection, wanted.name, credit, audit)
            below = _alerts(wanted.alerts_below_micro_dollars)
            return tenant_accounts.change_tenant(
                connection, made.id, limit_changes(wanted.limits), below, audit, settings=settings
            )

        return json_response(tenant_object(await self._write(change)).model_dump_json())

    async def get_tenant(self, request: Request) -> Response:
        await self._audit(request)
        name = path_id(request)
        found = await self._read(lambda connection: tenant_accounts.find_tenant(connection, name))
        return json_response(tenant_object(found).model_dump_json())

    async def change_tenant(self, request: Request) -> Response:
        audit = await self._audit(request)
        name = path_id(request)
        wanted = parse_body(TenantChange, await self._body(request))
        below, settings = _alerts(wanted.alerts_below_micro_dollars), setting_changes(wanted)
        changed = await self._write(
            lambda connection: tenant_accounts.change_tenant(
                connection, name, limit_changes(wanted.limits), below, audit, settings=settings
            )
        )
        return json_response(tenant_object(changed).model_dump_json())

    async def create_key(self, request: Request) -> Response:
        audit = await self._audit(request)
        wanted = parse_body(KeyCreate, await self._body(request))
        key = api_keys.generate()
        new = new_key(wanted, wanted.scopes, key, audit.now, self._service.model_names)

        def change(connection: Connection) -> tenant_keys.Key:
            tenant = tenant_accounts.find_tenant(connection, wanted.tenant)
            return create_key(connection, tenant.id, new, audit)

        made = await self._write(change)
        return json_response(new_key_object(made, key.reveal()).model_dump_json())

    async def get_key(self, request: Request) -> Response:
        await self._audit(request)
        key_id = KeyId(path_id(request))
        found = await self._read(lambda connection: tenant_keys.get_key(connection, key_id))
        return json_response(key_object(found).model_dump_json())

    async def change_key(self, request: Request) -> Response:
        audit = await self._audit(request)
        key_id = KeyId(path_id(request))
        wanted = parse_body(KeyChange, await self._body(request))
        changed = await self._write(
            lambda connection: change_key(connection, key_id, wanted, audit)
        )
        return json_response(key_object(changed).model_dump_json())

    async def rotate_key(self, request: Request) -> Response:
        audit = await self._audit(request)
        key_id = KeyId(path_id(request))
        overlap_s = Seconds(parse_body(KeyRotation, await self._body(request)).overlap_s)
        key = api_keys.generate()
        made = await self._write(
            lambda connection: rotate_key(connection, key_id, key, overlap_s, audit)
        )
        return json_response(new_key_object(made, key.reveal()).model_dump_json())

    async def revoke_key(self, request: Request) -> Response:
        audit = await self._audit(request)
        key_id = KeyId(path_id(request))
        revoked = await self._write(lambda connection: revoke_key(connection, key_id, audit))
        return json_response(key_object(revoked).model_dump_json())

    async def add_credit(self, request: Request) -> Response:
        audit = await self._audit(request)
        wanted = await self._once(CreditCreate, request)

        def change(connection: Connection) -> credit_grants.Grant:
            tenant = tenant_accounts.find_tenant(connection, wanted.tenant)
            return credit_grants.grant(
                connection,
                tenant.id,
                Credits(wanted.amount_micro_dollars),
                wanted.reason,
                audit,
                idempotency_key=wanted.idempotency_key,
            )

        return json_response(grant_object(await self._write(change)).model_dump_json())

    async def refund(self, request: Request) -> Response:
        audit = await self._audit(request)
        wanted = await self._once(RefundCreate, request)
        amount = wanted.amount_micro_dollars
        given = await self._write(
            lambda connection: credit_grants.refund(
                connection,
                RequestId(wanted.request_id),
                None if amount is None else Credits(amount),
                wanted.reason,
                audit,
                idempotency_key=wanted.idempotency_key,
            )
        )
        return json_response(grant_object(given).model_dump_json())

    async def _audit(self, request: Request) -> AuditContext:
        return self._audit_of(await self._caller(request))

    async def _once(self, kind: type[Once], request: Request) -> Once:
        return parse_once(kind, await self._body(request), request.headers.get(IDEMPOTENCY_HEADER))


def _alerts(below: list[int] | None) -> list[Credits] | None:
    return None if below is None else [Credits(each) for each in below]
