"""The ``/admin/v1`` routes: the account operations of the command line, for operators' programs.

Every route needs a key with the scope ``admin``, under which the audit log records its changes. A
change runs as one transaction off the event loop.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response

from serve_app.access import api_keys
from serve_app.domain.errors import InvalidRequest
from serve_app.domain.model import Caller, LimitChanges, RateLimits
from serve_app.domain.model_names import ModelNames
from serve_app.domain.units import Credits, KeyId, Moment, RequestId, Seconds
from serve_app.http.admin.lists import AUDIT_LOG, GRANTS, KEYS, TENANTS, list_endpoint
from serve_app.http.admin.objects import (
    as_client_errors,
    grant_object,
    key_object,
    new_key_object,
    tenant_object,
)
from serve_app.http.error_boundary import Endpoint
from serve_app.http.headers import IDEMPOTENCY_HEADER, sent_keys
from serve_app.http.rerank.body import read_body
from serve_app.http.service import Service
from serve_app.ledger.accounts import credit_grants, tenant_accounts, tenant_keys
from serve_app.ledger.accounts.tenant_keys import NewKey
from serve_app.ledger.db.audit_log import AuditContext
from serve_app.ledger.db.engines import Connection
from serve_app.ledger.money.calendar import MILLISECONDS_PER_DAY
from serve_app.protocols.admin import (
    CreditCreate,
    KeyChange,
    KeyCreate,
    KeyRotation,
    LimitsChange,
    Once,
    RefundCreate,
    TenantChange,
    TenantCreate,
    parse_body,
    parse_once,
    setting_changes,
)
from serve_app.protocols.json_body import text_fault

BODY_BYTES_MAX = 100_000
"""Admin bodies are small enough to bypass the body gate. A client that fills the gate must not
prevent the revocation of a key."""

T = TypeVar("T")


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
    }


class _Admin:
    def __init__(self, service: Service) -> None:
        self._service = service

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
                connection, made.id, _changes(wanted.limits), below, audit, settings=settings
            )

        return _json(tenant_object(await self._write(change)).model_dump_json())

    async def get_tenant(self, request: Request) -> Response:
        await self._audit(request)
        name = _id(request)
        found = await self._read(lambda connection: tenant_accounts.find_tenant(connection, name))
        return _json(tenant_object(found).model_dump_json())

    async def change_tenant(self, request: Request) -> Response:
        audit = await self._audit(request)
        name = _id(request)
        wanted = parse_body(TenantChange, await self._body(request))
        below, settings = _alerts(wanted.alerts_below_micro_dollars), setting_changes(wanted)
        changed = await self._write(
            lambda connection: tenant_accounts.change_tenant(
                connection, name, _changes(wanted.limits), below, audit, settings=settings
            )
        )
        return _json(tenant_object(changed).model_dump_json())

    async def create_key(self, request: Request) -> Response:
        audit = await self._audit(request)
        wanted = parse_body(KeyCreate, await self._body(request))
        key = api_keys.generate()
        new = _new_key(wanted, key, audit.now, self._service.model_names)

        def change(connection: Connection) -> tenant_keys.Key:
            tenant = tenant_accounts.find_tenant(connection, wanted.tenant)
            tenant_keys.create_key(connection, tenant.id, new, audit)
            return tenant_keys.get_key(connection, key.key_id)

        made = await self._write(change)
        return _json(new_key_object(made, key.reveal()).model_dump_json())

    async def get_key(self, request: Request) -> Response:
        await self._audit(request)
        key_id = KeyId(_id(request))
        found = await self._read(lambda connection: tenant_keys.get_key(connection, key_id))
        return _json(key_object(found).model_dump_json())

    async def change_key(self, request: Request) -> Response:
        audit = await self._audit(request)
        key_id = KeyId(_id(request))
        wanted = parse_body(KeyChange, await self._body(request))

        def change(connection: Connection) -> tenant_keys.Key:
            tenant_keys.change_key_limits(connection, key_id, wanted.limits.changes(), audit)
            return tenant_keys.get_key(connection, key_id)

        return _json(key_object(await self._write(change)).model_dump_json())

    async def rotate_key(self, request: Request) -> Response:
        audit = await self._audit(request)
        key_id = KeyId(_id(request))
        overlap_s = Seconds(parse_body(KeyRotation, await self._body(request)).overlap_s)
        key = api_keys.generate()

        def change(connection: Connection) -> tenant_keys.Key:
            new = (key.key_id, key.secret_sha256)
            tenant_keys.rotate_key(connection, key_id, new, overlap_s, audit)
            return tenant_keys.get_key(connection, key.key_id)

        made = await self._write(change)
        return _json(new_key_object(made, key.reveal()).model_dump_json())

    async def revoke_key(self, request: Request) -> Response:
        audit = await self._audit(request)
        key_id = KeyId(_id(request))

        def change(connection: Connection) -> tenant_keys.Key:
            tenant_keys.revoke_key(connection, key_id, audit)
            return tenant_keys.get_key(connection, key_id)

        return _json(key_object(await self._write(change)).model_dump_json())

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

        return _json(grant_object(await self._write(change)).model_dump_json())

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
        return _json(grant_object(given).model_dump_json())

    async def _audit(self, request: Request) -> AuditContext:
        caller = await self._authenticate(sent_keys(request.headers))
        return AuditContext(f"key {caller.key_id}", self._service.clock.moment())

    async def _authenticate(self, keys: Sequence[str]) -> Caller:
        return await self._service.access.authenticate(keys, api_keys.SCOPE_ADMIN)

    async def _once(self, kind: type[Once], request: Request) -> Once:
        return parse_once(kind, await self._body(request), request.headers.get(IDEMPOTENCY_HEADER))

    async def _body(self, request: Request) -> bytes:
        recheck = partial(self._authenticate, sent_keys(request.headers))
        timeout_s = self._service.limits.body_timeout_s
        body = await read_body(request, BODY_BYTES_MAX, timeout_s, recheck, lambda _size: None)
        await recheck()
        return bytes(body)

    async def _read(self, query: Callable[[Connection], T]) -> T:
        with as_client_errors():
            return await self._service.office.read(query)

    async def _write(self, change: Callable[[Connection], T]) -> T:
        with as_client_errors():
            return await self._service.office.write(change)


def _id(request: Request) -> str:
    name: str = request.path_params["id"]
    if fault := text_fault(name):
        raise InvalidRequest("id", fault)
    return name


def _new_key(
    wanted: KeyCreate, key: api_keys.ApiKey, now: Moment, model_names: ModelNames
) -> NewKey:
    days, names = wanted.expires_in_days, wanted.models
    return NewKey(
        key.key_id,
        key.secret_sha256,
        wanted.label,
        set(wanted.scopes),
        None if names is None else set(map(model_names.resolve, names)),
        None if days is None else Moment(now + days * MILLISECONDS_PER_DAY),
        RateLimits(**_changes(wanted.limits)),
    )


def _changes(limits: LimitsChange | None) -> LimitChanges:
    return {} if limits is None else limits.changes()


def _alerts(below: list[int] | None) -> list[Credits] | None:
    return None if below is None else [Credits(each) for each in below]


def _json(body: str) -> Response:
    return Response(body, media_type="application/json")
