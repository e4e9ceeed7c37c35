"""The usage and admin routes as `serve_app.http.openapi` tells them: data, a row for each."""

from collections.abc import Sequence
from dataclasses import dataclass

from serve_app.domain.errors import Conflict, InvalidRequest, NotFound, RerankError, TooLarge

LIST_QUERY = ("limit", "cursor")
USAGE_QUERY = ("since", "until", "group_by", *LIST_QUERY, "format")

QUERY_PARAMETERS = {
    "since": "From this date or time on (ISO 8601, UTC).",
    "until": "Before this date or time (ISO 8601, UTC).",
    "group_by": "What a row stands for: some of `day`, `model`, `key` (and `tenant`, on the admin "
    "route), with commas between. Absent: `day`.",
    "limit": "Rows of a page, 1 to 1000 and 100 when absent; of CSV, up to 10000 in any case.",
    "cursor": "The `next_cursor` of the page before (of CSV: its header `x-next-cursor`).",
    "format": "`json` or `csv`; absent: CSV if the header `Accept` names `text/csv`.",
    "tenant": "Id or name of a tenant: only what is its.",
}


@dataclass(frozen=True, slots=True)
class Operation:
    """A method of a route."""

    method: str
    path: str
    name: str
    summary: str
    answer: str
    """Names a schema, as ``body`` does."""

    body: str | None = None
    query: Sequence[str] = ()
    errors: Sequence[type[RerankError]] = (InvalidRequest,)
    headers: Sequence[str] = ()
    csv: bool = False
    """Whether the answer may be CSV instead."""


_CHANGES = (InvalidRequest, NotFound, TooLarge)

OPERATIONS = (
    Operation(
        "get",
        "/v1/usage",
        "getUsage",
        "What your requests came to",
        "UsageList",
        query=USAGE_QUERY,
        csv=True,
    ),
    Operation(
        "get",
        "/admin/v1/usage",
        "getTenantsUsage",
        "What all requests came to",
        "TenantUsageList",
        query=(*USAGE_QUERY, "tenant"),
        errors=(InvalidRequest, NotFound),
        csv=True,
    ),
    Operation(
        "get",
        "/admin/v1/tenants",
        "listTenants",
        "Tenants, by name",
        "TenantList",
        query=LIST_QUERY,
    ),
    Operation(
        "post",
        "/admin/v1/tenants",
        "createTenant",
        "A new tenant",
        "TenantObject",
        "TenantCreate",
        errors=(InvalidRequest, Conflict, TooLarge),
    ),
    Operation(
        "get",
        "/admin/v1/tenants/{id}",
        "getTenant",
        "One tenant",
        "TenantObject",
        errors=(InvalidRequest, NotFound),
    ),
    Operation(
        "patch",
        "/admin/v1/tenants/{id}",
        "changeTenant",
        "Change its limits and alerts",
        "TenantObject",
        "TenantChange",
        errors=_CHANGES,
    ),
    Operation(
        "get",
        "/admin/v1/keys",
        "listKeys",
        "API keys, oldest first",
        "KeyList",
        query=(*LIST_QUERY, "tenant"),
        errors=(InvalidRequest, NotFound),
    ),
    Operation(
        "post",
        "/admin/v1/keys",
        "createKey",
        "A new key; its secret is shown once",
        "NewKeyObject",
        "KeyCreate",
        errors=_CHANGES,
    ),
    Operation(
        "get",
        "/admin/v1/keys/{id}",
        "getKey",
        "One key",
        "KeyObject",
        errors=(InvalidRequest, NotFound),
    ),
    Operation(
        "patch",
        "/admin/v1/keys/{id}",
        "changeKey",
        "Change its limits",
        "KeyObject",
        "KeyChange",
        errors=_CHANGES,
    ),
    Operation(
        "post",
        "/admin/v1/keys/{id}/rotate",
        "rotateKey",
        "A new key in its place; the secret is shown once",
        "NewKeyObject",
        "KeyRotation",
        errors=(*_CHANGES, Conflict),
    ),
    Operation(
        "post",
        "/admin/v1/keys/{id}/revoke",
        "revokeKey",
        "Make a key useless",
        "KeyObject",
        errors=(InvalidRequest, NotFound),
    ),
    Operation(
        "get",
        "/admin/v1/credit",
        "listGrants",
        "What changed a tenant's credit, other than charges",
        "GrantList",
        query=(*LIST_QUERY, "tenant"),
        errors=(InvalidRequest, NotFound),
    ),
    Operation(
        "post",
        "/admin/v1/credit",
        "addCredit",
        "A top-up, or below zero a correction",
        "GrantObject",
        "CreditCreate",
        errors=(*_CHANGES, Conflict),
        headers=("Idempotency-Key",),
    ),
    Operation(
        "post",
        "/admin/v1/credit/refunds",
        "refund",
        "Give a request's charge back",
        "GrantObject",
        "RefundCreate",
        errors=(*_CHANGES, Conflict),
        headers=("Idempotency-Key",),
    ),
    Operation(
        "get",
        "/admin/v1/acts",
        "listActs",
        "Who did what, and when",
        "ActList",
        query=(*LIST_QUERY, "tenant"),
        errors=(InvalidRequest, NotFound),
    ),
)
