"""Wire types of the admin routes.

No value is converted, and an unknown field is refused, because a misspelt limit would have no
effect. Null means absent, except within ``limits``, where it removes a limit.
"""

from collections.abc import Iterable
from typing import Annotated, Any, Literal, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field

from serve_app.domain.errors import InvalidRequest
from serve_app.domain.model import TENANT_SETTINGS, WEIGHT_MAX, LimitChanges, SettingChanges
from serve_app.protocols.json_body import read_object
from serve_app.protocols.paging import Page, read_parameters
from serve_app.protocols.validation import Wire, check_texts, validated

GRANT_MAX = 1_000_000_000_000
"""In micro-dollars: one million dollars. A larger amount is probably a typing error."""

LIMIT_VALUE_MAX = 10**15
EXPIRES_IN_DAYS_MAX = 36_500
OVERLAP_S_DEFAULT = 86_400
OVERLAP_S_MAX = 90 * 86_400
IDEMPOTENCY_KEY_CHARACTERS_MAX = 128

Name = Annotated[str, Field(min_length=1, max_length=128)]
Reason = Annotated[str, Field(min_length=1, max_length=512)]
Limit = Annotated[int, Field(ge=0, le=LIMIT_VALUE_MAX)]
Alert = Annotated[int, Field(ge=1, le=GRANT_MAX)]
Weight = Annotated[
    int,
    Field(
        ge=1,
        le=WEIGHT_MAX,
        description="Share of busy replicas relative to other tenants; 1 for a new tenant.",
    ),
]
IdempotencyKey = Annotated[
    str,
    Field(
        min_length=1,
        max_length=IDEMPOTENCY_KEY_CHARACTERS_MAX,
        description="A repeated request with the same key returns the first one's grant.",
    ),
]
TenantName = Annotated[Name, Field(description="A tenant's id or name.")]
Time = Annotated[str, Field(description="ISO 8601, UTC, with milliseconds.")]


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class LimitsChange(_Body):
    """Limits to set. Null removes a limit; an absent limit stays unchanged."""

    requests_per_minute_max: Limit | None = None
    documents_per_minute_max: Limit | None = None
    concurrent_requests_max: Limit | None = None
    monthly_budget_micro_dollars: Annotated[
        Limit | None, Field(description="Maximum spending per calendar month (UTC).")
    ] = None

    def changes(self) -> LimitChanges:
        return cast(LimitChanges, self.model_dump(include=self.model_fields_set))


class TenantCreate(_Body):
    """A new tenant."""

    name: Annotated[
        Name,
        Field(
            description="Stored in Unicode form NFKC with single spaces between words. A name that "
            "looks like another tenant's is refused with 409."
        ),
    ]
    credit_micro_dollars: Annotated[
        int | None,
        Field(ge=0, le=GRANT_MAX, description="Initial credit. Default: the free credit."),
    ] = None
    limits: LimitsChange | None = None
    alerts_below_micro_dollars: Annotated[list[Alert] | None, Field(max_length=10)] = None
    weight: Weight | None = None


class TenantChange(_Body):
    """Changes to a tenant. An absent field stays unchanged."""

    limits: LimitsChange | None = None
    alerts_below_micro_dollars: Annotated[
        list[Alert] | None,
        Field(max_length=10, description="An event is sent if credit falls below one of these."),
    ] = None
    weight: Weight | None = None


def setting_changes(body: TenantCreate | TenantChange) -> SettingChanges:
    return cast(SettingChanges, body.model_dump(include=set(TENANT_SETTINGS), exclude_none=True))


class NewKeyFields(_Body):
    """What an administrator and a tenant may choose for a new API key."""

    label: Name = "key"
    models: Annotated[
        list[Name] | None, Field(min_length=1, max_length=100, description="Default: every model.")
    ] = None
    expires_in_days: Annotated[int | None, Field(ge=1, le=EXPIRES_IN_DAYS_MAX)] = None
    limits: LimitsChange | None = None


class KeyCreate(NewKeyFields):
    """A new API key."""

    tenant: TenantName
    scopes: Annotated[
        list[Literal["rerank", "manage", "admin"]], Field(min_length=1, max_length=10)
    ] = ["rerank"]


class KeyChange(_Body):
    """Changes to an API key. An absent field stays unchanged."""

    label: Name | None = None
    limits: LimitsChange | None = None


class KeyRotation(_Body):
    """Options for the replacement of an API key."""

    overlap_s: Annotated[
        int,
        Field(ge=0, le=OVERLAP_S_MAX, description="Seconds for which the old key stays valid."),
    ] = OVERLAP_S_DEFAULT


class CreditCreate(_Body):
    """A top-up, or a correction if the amount is negative."""

    tenant: TenantName
    amount_micro_dollars: Annotated[int, Field(ge=-GRANT_MAX, le=GRANT_MAX)]
    reason: Reason
    idempotency_key: IdempotencyKey | None = None


class RefundCreate(_Body):
    """A refund for a charged request."""

    request_id: Annotated[str, Field(min_length=1, max_length=128)]
    amount_micro_dollars: Annotated[
        int | None, Field(ge=1, le=GRANT_MAX, description="Default: the rest of the charge.")
    ] = None
    reason: Reason
    idempotency_key: IdempotencyKey | None = None


Once = TypeVar("Once", CreditCreate, RefundCreate)


class LimitsObject(BaseModel):
    """Limits in force. Null means no limit."""

    requests_per_minute_max: int | None
    documents_per_minute_max: int | None
    concurrent_requests_max: int | None
    monthly_budget_micro_dollars: int | None


class TenantObject(BaseModel):
    """A tenant, which is the party that is billed."""

    object: Literal["tenant"] = "tenant"
    id: str
    name: str
    available_micro_dollars: int
    created_at: Time
    limits: LimitsObject
    alerts_below_micro_dollars: list[int]
    weight: int


class TenantList(Page):
    """Tenants, ordered by name."""

    data: list[TenantObject]


class KeyObject(BaseModel):
    """An API key without its secret."""

    object: Literal["api_key"] = "api_key"
    id: str
    tenant: Annotated[str, Field(description="The tenant's id.")]
    tenant_name: str
    label: str
    scopes: list[str]
    models: Annotated[list[str] | None, Field(description="Null means every model.")]
    created_at: Time
    expires_at: Time | None
    revoked_at: Time | None
    last_used_at: Annotated[Time | None, Field(description="May lag by a few seconds.")]
    replaces: Annotated[str | None, Field(description="The key that this one replaced.")]
    limits: LimitsObject


class NewKeyObject(KeyObject):
    """An API key with its secret, which is not shown again."""

    secret: Annotated[str, Field(description="The whole key, as clients send it.")]


class KeyList(Page):
    """API keys, oldest first, including revoked and expired ones."""

    data: list[KeyObject]


class GrantObject(BaseModel):
    """A change of a tenant's credit other than a charge."""

    object: Literal["grant"] = "grant"
    id: str
    tenant: str
    kind: Literal["grant", "refund", "correction"]
    amount_micro_dollars: int
    reason: str
    who: str
    created_at: Time
    request_id: Annotated[str | None, Field(description="The refunded request.")]


class GrantList(Page):
    """A tenant's grants, refunds and corrections, oldest first."""

    data: list[GrantObject]


class AuditEntryObject(BaseModel):
    """An entry of the audit log."""

    object: Literal["audit_entry"] = "audit_entry"
    id: int
    at: Time
    who: Annotated[str, Field(description="`key <id>`, or a command-line user.")]
    action: str
    tenant: str | None
    subject: Annotated[str, Field(description="Id of the changed object.")]
    details: dict[str, Any]


class AuditEntryList(Page):
    """Entries of the audit log, oldest first."""

    data: list[AuditEntryObject]


def parse_body(kind: type[Wire], body: bytes) -> Wire:
    """Parse a body; a missing one counts as ``{}``.

    Raises: InvalidRequest, which names the field.
    """
    fields = {
        name: value for name, value in read_object(body or b"{}").items() if value is not None
    }
    check_texts(fields)
    return validated(kind, fields)


def parse_once(kind: type[Once], body: bytes, idempotency_key: str | None) -> Once:
    """Parse an idempotent request; the header ``Idempotency-Key`` counts as the field.

    Raises: InvalidRequest.
    """
    credit = parse_body(kind, body)
    if idempotency_key is None:
        return credit
    if credit.idempotency_key not in (None, idempotency_key):
        raise InvalidRequest("idempotency_key", "differs from the header Idempotency-Key")
    if not 1 <= len(idempotency_key) <= IDEMPOTENCY_KEY_CHARACTERS_MAX:
        raise InvalidRequest(
            "Idempotency-Key", f"must have 1 to {IDEMPOTENCY_KEY_CHARACTERS_MAX} characters"
        )
    return credit.model_copy(update={"idempotency_key": idempotency_key})


def parse_list(parameters: Iterable[tuple[str, str]], *names: str) -> dict[str, str]:
    """Raises: InvalidRequest."""
    return read_parameters(parameters, ("limit", "cursor", *names))
