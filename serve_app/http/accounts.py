"""What the admin routes and the tenants' own routes share.

A change is one transaction off the event loop, which the audit log records under the request's key.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response

from serve_app.access.api_keys import ApiKey
from serve_app.domain.errors import InvalidRequest
from serve_app.domain.model import Caller, LimitChanges, RateLimits
from serve_app.domain.model_names import ModelNames
from serve_app.domain.units import KeyId, Moment, Seconds, TenantId
from serve_app.http.admin.objects import as_client_errors
from serve_app.http.headers import sent_keys
from serve_app.http.rerank.body import read_body
from serve_app.http.service import Service
from serve_app.ledger.accounts import tenant_keys
from serve_app.ledger.accounts.tenant_keys import Key, NewKey
from serve_app.ledger.db.audit_log import AuditContext
from serve_app.ledger.db.engines import Connection
from serve_app.ledger.money.calendar import MILLISECONDS_PER_DAY
from serve_app.protocols.admin import KeyChange, LimitsChange, NewKeyFields
from serve_app.protocols.json_body import text_fault

BODY_BYTES_MAX = 100_000
"""Small enough to bypass the body gate: a client that fills the gate must not prevent a
revocation."""

T = TypeVar("T")


class AccountRoutes:
    """Routes that need a key with one scope, and read or change accounts."""

    def __init__(self, service: Service, scope: str) -> None:
        self._service = service
        self._scope = scope

    async def _caller(self, request: Request) -> Caller:
        return await self._authenticate(sent_keys(request.headers))

    async def _authenticate(self, keys: Sequence[str]) -> Caller:
        return await self._service.access.authenticate(keys, self._scope)

    def _audit_of(self, caller: Caller) -> AuditContext:
        return AuditContext(f"key {caller.key_id}", self._service.clock.moment())

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


def path_id(request: Request) -> str:
    """Raises: InvalidRequest."""
    name: str = request.path_params["id"]
    if fault := text_fault(name):
        raise InvalidRequest("id", fault)
    return name


def json_response(body: str) -> Response:
    return Response(body, media_type="application/json")


def limit_changes(limits: LimitsChange | None) -> LimitChanges:
    return {} if limits is None else limits.changes()


def new_key(
    wanted: NewKeyFields, scopes: Sequence[str], key: ApiKey, now: Moment, model_names: ModelNames
) -> NewKey:
    days, names = wanted.expires_in_days, wanted.models
    return NewKey(
        key.key_id,
        key.secret_sha256,
        wanted.label,
        set(scopes),
        None if names is None else set(map(model_names.resolve, names)),
        None if days is None else Moment(now + days * MILLISECONDS_PER_DAY),
        RateLimits(**limit_changes(wanted.limits)),
    )


def create_key(connection: Connection, tenant: TenantId, new: NewKey, audit: AuditContext) -> Key:
    tenant_keys.create_key(connection, tenant, new, audit)
    return tenant_keys.get_key(connection, new.id)


def change_key(
    connection: Connection, key_id: KeyId, wanted: KeyChange, audit: AuditContext
) -> Key:
    if wanted.limits is not None:
        tenant_keys.change_key_limits(connection, key_id, wanted.limits.changes(), audit)
    if wanted.label is not None:
        tenant_keys.set_key_label(connection, key_id, wanted.label, audit)
    return tenant_keys.get_key(connection, key_id)


def rotate_key(
    connection: Connection, key_id: KeyId, key: ApiKey, overlap_s: Seconds, audit: AuditContext
) -> Key:
    new = (key.key_id, key.secret_sha256)
    tenant_keys.rotate_key(connection, key_id, new, overlap_s, audit)
    return tenant_keys.get_key(connection, key.key_id)


def revoke_key(connection: Connection, key_id: KeyId, audit: AuditContext) -> Key:
    tenant_keys.revoke_key(connection, key_id, audit)
    return tenant_keys.get_key(connection, key_id)
