"""The routes by which a tenant manages its own account.

All but ``GET /v1/key`` need the scope ``manage``. An object of another tenant is answered like one
that does not exist.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response

from serve_app.access import api_keys
from serve_app.domain.errors import Forbidden
from serve_app.domain.model import Caller
from serve_app.domain.units import KeyId, ModelId, Seconds
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
from serve_app.http.admin.lists import KEYS, OWN_AUDIT_LOG, OWN_GRANTS, Asked, own_list_endpoint
from serve_app.http.admin.objects import (
    calling_key_object,
    credits_object,
    key_object,
    new_key_object,
)
from serve_app.http.error_boundary import Endpoint
from serve_app.http.headers import sent_keys
from serve_app.http.service import Service
from serve_app.ledger.accounts import own_keys
from serve_app.ledger.accounts.credit_grants import Grant
from serve_app.ledger.accounts.tenant_keys import Key
from serve_app.ledger.db.engines import Connection
from serve_app.ledger.reports.credit_state import CreditState, credit_state
from serve_app.ledger.reports.limit_use import LimitUse, limit_use
from serve_app.protocols.admin import KeyChange, KeyRotation, parse_body, parse_list
from serve_app.protocols.manage import OwnKeyCreate

T = TypeVar("T")


def manage_endpoints(service: Service) -> dict[str, dict[str, Endpoint]]:
    own = _Own(service)
    return {
        "/v1/key": {"GET": own.calling_key},
        "/v1/keys": {"GET": own_list_endpoint(service, KEYS), "POST": own.create_key},
        "/v1/keys/{id}": {"GET": own.get_key, "PATCH": own.change_key},
        "/v1/keys/{id}/rotate": {"POST": own.rotate_key},
        "/v1/keys/{id}/revoke": {"POST": own.revoke_key},
        "/v1/credits": {"GET": own.credits},
        "/v1/audit-log": {"GET": own_list_endpoint(service, OWN_AUDIT_LOG)},
    }


class _Own(AccountRoutes):
    def __init__(self, service: Service) -> None:
        super().__init__(service, api_keys.SCOPE_MANAGE)

    async def calling_key(self, request: Request) -> Response:
        """Any valid key may call this."""
        keys = sent_keys(request.headers)
        caller = await self._service.access.authenticate(keys, *api_keys.SCOPES)
        now = self._service.clock.moment()

        def query(connection: Connection) -> tuple[Key, tuple[LimitUse, LimitUse]]:
            key = own_keys.own_key(connection, caller.tenant, caller.key_id)
            return key, limit_use(connection, caller, now)

        key, uses = await self._read_own(caller, query)
        return json_response(calling_key_object(key, *uses).model_dump_json())

    async def create_key(self, request: Request) -> Response:
        caller, body = await self._own_body(request)
        wanted = parse_body(OwnKeyCreate, body)
        key, audit = api_keys.generate(), self._audit_of(caller)
        new = new_key(wanted, wanted.scopes, key, audit.now, self._service.model_names)
        if new.models is None:
            new = replace(new, models=caller.models)
        _check_models(caller, new.models)

        def change(connection: Connection) -> Key:
            own_keys.begin_change(connection, caller.tenant, audit.now)
            own_keys.check_room(connection, caller.tenant, audit.now)
            own_keys.check_limits(connection, caller.tenant, limit_changes(wanted.limits))
            return create_key(connection, caller.tenant, new, audit)

        made = await self._write_own(caller, change)
        return json_response(new_key_object(made, key.reveal()).model_dump_json())

    async def get_key(self, request: Request) -> Response:
        caller = await self._caller(request)
        key_id = KeyId(path_id(request))
        found = await self._read_own(
            caller, lambda connection: own_keys.own_key(connection, caller.tenant, key_id)
        )
        return json_response(key_object(found).model_dump_json())

    async def change_key(self, request: Request) -> Response:
        caller, body = await self._own_body(request)
        key_id, audit = KeyId(path_id(request)), self._audit_of(caller)
        wanted = parse_body(KeyChange, body)

        def change(connection: Connection) -> Key:
            own_keys.begin_change(connection, caller.tenant, audit.now)
            _check_changeable(own_keys.own_key(connection, caller.tenant, key_id))
            own_keys.check_limits(connection, caller.tenant, limit_changes(wanted.limits))
            return change_key(connection, key_id, wanted, audit)

        changed = await self._write_own(caller, change)
        return json_response(key_object(changed).model_dump_json())

    async def rotate_key(self, request: Request) -> Response:
        caller, body = await self._own_body(request)
        key_id, audit = KeyId(path_id(request)), self._audit_of(caller)
        overlap_s = Seconds(parse_body(KeyRotation, body).overlap_s)
        key = api_keys.generate()

        def change(connection: Connection) -> Key:
            own_keys.begin_change(connection, caller.tenant, audit.now)
            old = own_keys.own_key(connection, caller.tenant, key_id)
            _check_changeable(old)
            # The caller receives the secret of a key that may use the old key's models.
            _check_models(caller, old.stored.caller.models)
            own_keys.check_room(connection, caller.tenant, audit.now)
            return rotate_key(connection, key_id, key, overlap_s, audit)

        made = await self._write_own(caller, change)
        return json_response(new_key_object(made, key.reveal()).model_dump_json())

    async def revoke_key(self, request: Request) -> Response:
        caller = await self._caller(request)
        key_id, audit = KeyId(path_id(request)), self._audit_of(caller)

        def change(connection: Connection) -> Key:
            key = own_keys.own_key(connection, caller.tenant, key_id)
            _check_changeable(key)
            if key.stored.revoked_at is not None:
                return key  # Not recorded, because revocations have no rate limit.
            return revoke_key(connection, key_id, audit)

        revoked = await self._write_own(caller, change)
        return json_response(key_object(revoked).model_dump_json())

    async def credits(self, request: Request) -> Response:
        caller = await self._caller(request)
        asked = Asked.of(OWN_GRANTS, parse_list(request.query_params.multi_items()))
        now = self._service.clock.moment()

        def query(connection: Connection) -> tuple[CreditState, Sequence[Grant]]:
            state = credit_state(connection, caller.tenant, now)
            return state, asked.rows(connection, caller.tenant)

        state, grants = await self._read_own(caller, query)
        return json_response(credits_object(state, asked.page(grants)).model_dump_json())

    async def _own_body(self, request: Request) -> tuple[Caller, bytes]:
        caller = await self._caller(request)
        with self._service.places.take(caller):
            return caller, await self._body(request)

    async def _read_own(self, caller: Caller, query: Callable[[Connection], T]) -> T:
        with self._service.report_places.take(caller):
            return await self._read(query)

    async def _write_own(self, caller: Caller, change: Callable[[Connection], T]) -> T:
        with self._service.change_places.take(caller):
            return await self._write(change)


def _check_changeable(key: Key) -> None:
    """Raises: Forbidden for an administrator's key."""
    if api_keys.SCOPE_ADMIN in key.stored.caller.scopes:
        raise Forbidden(f"this route for a key with the scope '{api_keys.SCOPE_ADMIN}'")


def _check_models(caller: Caller, models: Collection[ModelId] | None) -> None:
    """Raises: Forbidden if a new key may use models that the caller's may not."""
    if caller.models is not None and (models is None or not caller.models.issuperset(models)):
        raise Forbidden("this route for keys with more models than its own")
