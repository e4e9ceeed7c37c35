"""Descriptions of the usage and admin routes for `serve_app.http.openapi.document`, as data."""

from collections.abc import Sequence
from dataclasses import dataclass

from serve_app.domain.errors import Conflict, InvalidRequest, NotFound, RerankError, TooLarge
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

LIST_QUERY = ("limit", "cursor")
USAGE_QUERY = ("since", "until", "group_by", *LIST_QUERY, "format")

QUERY_PARAMETERS = {
    "since": "Start of the period, inclusive (ISO 8601 date or time, UTC).",
    "until": "End of the period, exclusive (ISO 8601 date or time, UTC).",
    "group_by": "Comma-separated list of `day`, `model`, `key` (and `tenant`, on the admin route) "
    "to group the rows by. Default: `day`.",
    "limit": "Maximum rows per page, 1 to 1000; default 100. For CSV, 1 to 10000; default 10000.",
    "cursor": "The `next_cursor` of the previous page (for CSV, its header `x-next-cursor`).",
    "format": "`json` or `csv`. Default: CSV if the header `Accept` names `text/csv`, else JSON.",
    "tenant": "Filter by tenant id or name.",
}


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one route."""

    method: str
    path: str
    name: str
    summary: str
    answer: WireType
    body: WireType | None = None
    query: Sequence[str] = ()
    errors: Sequence[type[RerankError]] = (InvalidRequest,)
    headers: Sequence[str] = ()
    csv: bool = False
    """Whether the response may be CSV instead of JSON."""


_CHANGES = (InvalidRequest, NotFound, TooLarge)

OPERATIONS = (
    Operation(
        "get",
        "/v1/usage",
        "getUsage",
        "Get the usage of your tenant",
        UsageList,
        query=USAGE_QUERY,
        csv=True,
    ),
    Operation(
        "get",
        "/admin/v1/usage",
        "getTenantsUsage",
        "Get the usage of all tenants",
        TenantUsageList,
        query=(*USAGE_QUERY, "tenant"),
        errors=(InvalidRequest, NotFound),
        csv=True,
    ),
    Operation(
        "get",
        "/admin/v1/tenants",
        "listTenants",
        "List tenants by name",
        TenantList,
        query=LIST_QUERY,
    ),
    Operation(
        "post",
        "/admin/v1/tenants",
        "createTenant",
        "Create a tenant",
        TenantObject,
        TenantCreate,
        errors=(InvalidRequest, Conflict, TooLarge),
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
        query=(*LIST_QUERY, "tenant"),
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
        query=(*LIST_QUERY, "tenant"),
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
        headers=("Idempotency-Key",),
    ),
    Operation(
        "post",
        "/admin/v1/credit/refunds",
        "refund",
        "Refund the charge of a request",
        GrantObject,
        RefundCreate,
        errors=(*_CHANGES, Conflict),
        headers=("Idempotency-Key",),
    ),
    Operation(
        "get",
        "/admin/v1/audit-log",
        "listAuditLog",
        "List the audit log",
        AuditEntryList,
        query=(*LIST_QUERY, "tenant"),
        errors=(InvalidRequest, NotFound),
    ),
)
