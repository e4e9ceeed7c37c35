"""Descriptions of the usage and admin routes for `serve_app.http.openapi.document`, as data."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from serve_app.domain.errors import (
    BodyTimeout,
    CompressedBody,
    Conflict,
    InvalidRequest,
    NotFound,
    RerankError,
    TooLarge,
)
from serve_app.http.openapi import parameters
from serve_app.protocols.admin import (
    AuditEntryList,
    CreditCreate,
    GrantList,
    GrantObject,
    KeyChange,
    KeyCreate,
    KeyList,
    KeyObject,
    KeyRotation,
    NewKeyObject,
    RefundCreate,
    TenantChange,
    TenantCreate,
    TenantList,
    TenantObject,
)
from serve_app.protocols.schemas import WireType
from serve_app.protocols.usage import TenantUsageList, UsageList

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one route."""

    method: str
    path: str
    name: str
    summary: str
    answer: WireType
    body: WireType | None = None
    parameters: Sequence[Json] = ()
    errors: Sequence[type[RerankError]] = (InvalidRequest,)
    csv: bool = False
    """Whether the response may be CSV instead of JSON."""


_CHANGES = (InvalidRequest, NotFound, BodyTimeout, TooLarge, CompressedBody)

OPERATIONS = (
    Operation(
        "get",
        "/v1/usage",
        "getUsage",
        "Get the usage of your tenant",
        UsageList,
        parameters=parameters.USAGE,
        csv=True,
    ),
    Operation(
        "get",
        "/admin/v1/usage",
        "getTenantsUsage",
        "Get the usage of all tenants",
        TenantUsageList,
        parameters=(*parameters.USAGE, parameters.TENANT),
        errors=(InvalidRequest, NotFound),
        csv=True,
    ),
    Operation(
        "get",
        "/admin/v1/tenants",
        "listTenants",
        "List tenants by name",
        TenantList,
        parameters=parameters.LIST,
    ),
    Operation(
        "post",
        "/admin/v1/tenants",
        "createTenant",
        "Create a tenant",
        TenantObject,
        TenantCreate,
        errors=(InvalidRequest, BodyTimeout, Conflict, TooLarge, CompressedBody),
    ),
    Operation(
        "get",
        "/admin/v1/tenants/{id}",
        "getTenant",
        "Get a tenant",
        TenantObject,
        errors=(InvalidRequest, NotFound),
    ),
    Operation(
        "patch",
        "/admin/v1/tenants/{id}",
        "changeTenant",
        "Change a tenant's limits, alerts and weight",
        TenantObject,
        TenantChange,
        errors=_CHANGES,
    ),
    Operation(
        "get",
        "/admin/v1/keys",
        "listKeys",
        "List API keys, oldest first",
        KeyList,
        parameters=(*parameters.LIST, parameters.TENANT),
        errors=(InvalidRequest, NotFound),
    ),
    Operation(
        "post",
        "/admin/v1/keys",
        "createKey",
        "Create an API key; the secret is shown once",
        NewKeyObject,
        KeyCreate,
        errors=_CHANGES,
    ),
    Operation(
        "get",
        "/admin/v1/keys/{id}",
        "getKey",
        "Get an API key",
        KeyObject,
        errors=(InvalidRequest, NotFound),
    ),
    Operation(
        "patch",
        "/admin/v1/keys/{id}",
        "changeKey",
        "Change an API key's limits",
        KeyObject,
        KeyChange,
        errors=_CHANGES,
    ),
    Operation(
        "post",
        "/admin/v1/keys/{id}/rotate",
        "rotateKey",
        "Replace an API key; the new secret is shown once",
        NewKeyObject,
        KeyRotation,
        errors=(*_CHANGES, Conflict),
    ),
    Operation(
        "post",
        "/admin/v1/keys/{id}/revoke",
        "revokeKey",
        "Revoke an API key",
        KeyObject,
        errors=(InvalidRequest, NotFound),
    ),
    Operation(
        "get",
        "/admin/v1/credit",
        "listGrants",
        "List a tenant's grants, refunds and corrections",
        GrantList,
        parameters=(*parameters.LIST, parameters.TENANT | {"required": True}),
        errors=(InvalidRequest, NotFound),
    ),
    Operation(
        "post",
        "/admin/v1/credit",
        "addCredit",
        "Add credit; a negative amount is a correction",
        GrantObject,
        CreditCreate,
        errors=(*_CHANGES, Conflict),
        parameters=(parameters.IDEMPOTENCY_KEY,),
    ),
    Operation(
        "post",
        "/admin/v1/credit/refunds",
        "refund",
        "Refund the charge of a request",
        GrantObject,
        RefundCreate,
        errors=(*_CHANGES, Conflict),
        parameters=(parameters.IDEMPOTENCY_KEY,),
    ),
    Operation(
        "get",
        "/admin/v1/audit-log",
        "listAuditLog",
        "List the audit log",
        AuditEntryList,
        parameters=(*parameters.LIST, parameters.TENANT),
        errors=(InvalidRequest, NotFound),
    ),
)
