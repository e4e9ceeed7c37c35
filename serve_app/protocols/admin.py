"""The admin routes on the wire: what an operator's program sends, and what it is answered.

Bodies are strict: no value is converted, and an unknown field is refused, because a misspelt limit
would be no limit. Nulls count as absent, but within ``limits``, where null lifts a limit.
"""

from collections.abc import Iterable
from typing import Annotated, Any, Literal, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field

from serve_app.domain.errors import InvalidRequest
from serve_app.domain.model import WEIGHT_MAX, LimitChanges
from serve_app.protocols.json_body import read_object
from serve_app.protocols.paging import Page, read_parameters
from serve_app.protocols.validation import Wire, check_texts, validated

GRANT_MAX = 1_000_000_000_000
"""Micro-dollars: a million dollars. More is a slip of the hand."""

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
        description="Shares of busy scorers, beside tenants of other weights; a new tenant has 1.",
    ),
]
IdempotencyKey = Annotated[
    str,
    Field(
        min_length=1,
        max_length=IDEMPOTENCY_KEY_CHARACTERS_MAX,
        description="A second request with it is answered with the first one's grant.",
    ),
]
TenantName = Annotated[Name, Field(description="A tenant's id or name.")]
Time = Annotated[str, Field(description="ISO 8601, UTC, to the millisecond.")]


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class LimitsChange(_Body):
    """Limits to set; null lifts one, and one that is absent stays as it is."""

    requests_per_minute_max: Limit | None = None
    documents_per_minute_max: Limit | None = None
    requests_at_once_max: Limit | None = None
    month_micro_dollars_max: Annotated[
        Limit | None, Field(description="What may be spent in a calendar month (UTC).")
    ] = None

    def changes(self) -> LimitChanges:
        """Only what was sent."""
        sent = self.model_dump(include=self.model_fields_set)
        if "month_micro_dollars_max" in sent:
            sent["month_amount_max"] = sent.pop("month_micro_dollars_max")
        return cast(LimitChanges, sent)


class TenantCreate(_Body):
    """A new tenant."""

    name: Annotated[
        Name,
        Field(
            description="Stored in Unicode form NFKC with single spaces between words. Names that "
            "look like another tenant's are refused with 409."
        ),
    ]
    credit_micro_dollars: Annotated[
        int | None,
        Field(ge=0, le=GRANT_MAX, description="Its first credit; absent: the free credit."),
    ] = None
    limits: LimitsChange | None = None
    alerts_below_micro_dollars: Annotated[list[Alert] | None, Field(max_length=10)] = None
    weight: Weight | None = None


class TenantChange(_Body):
    """What is to be different."""

    limits: LimitsChange | None = None
    alerts_below_micro_dollars: Annotated[
        list[Alert] | None,
        Field(max_length=10, description="An event tells when less than one of these is left."),
    ] = None
    weight: Weight | None = None


class KeyCreate(_Body):
    """A new API key."""

    tenant: TenantName
    label: Name = "key"
    scopes: Annotated[list[Literal["rerank", "admin"]], Field(min_length=1, max_length=10)] = [
        "rerank"
    ]
    models: Annotated[
        list[Name] | None, Field(min_length=1, max_length=100, description="Absent: every model.")
    ] = None
    expires_in_days: Annotated[int | None, Field(ge=1, le=EXPIRES_IN_DAYS_MAX)] = None
    limits: LimitsChange | None = None


class KeyChange(_Body):
    """What is to be different."""

    limits: LimitsChange


class KeyRotation(_Body):
    """How a key is replaced."""

    overlap_s: Annotated[
        int,
        Field(ge=0, le=OVERLAP_S_MAX, description="How long the old key goes on working."),
    ] = OVERLAP_S_DEFAULT


class CreditCreate(_Body):
    """A top-up, or below zero a correction."""

    tenant: TenantName
    amount_micro_dollars: Annotated[int, Field(ge=-GRANT_MAX, le=GRANT_MAX)]
    reason: Reason
    idempotency_key: IdempotencyKey | None = None


class RefundCreate(_Body):
    """Credit for a request that was charged."""

    request_id: Annotated[str, Field(min_length=1, max_length=128)]
    amount_micro_dollars: Annotated[
        int | None, Field(ge=1, le=GRANT_MAX, description="Absent: all that is left of the charge.")
    ] = None
    reason: Reason
    idempotency_key: IdempotencyKey | None = None


Once = TypeVar("Once", CreditCreate, RefundCreate)


class LimitsObject(BaseModel):
    """Limits in force; null: none."""

    requests_per_minute_max: int | None
    documents_per_minute_max: int | None
    requests_at_once_max: int | None
    month_micro_dollars_max: int | None


class TenantObject(BaseModel):
    """Who is billed."""

    object: Literal["tenant"] = "tenant"
    id: str
    name: str
    available_micro_dollars: int
    created_at: Time
    limits: LimitsObject
    alerts_below_micro_dollars: list[int]
    weight: int


class TenantList(Page):
    """Tenants, by name."""

    data: list[TenantObject]


class KeyObject(BaseModel):
    """An API key without its secret."""

    object: Literal["api_key"] = "api_key"
    id: str
    tenant: Annotated[str, Field(description="The tenant's id.")]
    tenant_name: str
    label: str
    scopes: list[str]
    models: Annotated[list[str] | None, Field(description="Null: every model.")]
    created_at: Time
    expires_at: Time | None
    revoked_at: Time | None
    last_used_at: Annotated[Time | None, Field(description="Up to a few seconds late.")]
    replaces: Annotated[str | None, Field(description="The key whose place it took.")]
    limits: LimitsObject


class NewKeyObject(KeyObject):
    """An API key with its secret, which is not shown again."""

    secret: Annotated[str, Field(description="The whole key, as clients send it.")]


class KeyList(Page):
    """API keys, oldest first; revoked and expired ones included."""

    data: list[KeyObject]


class GrantObject(BaseModel):
    """What changed a tenant's credit, other than a charge."""

    object: Literal["grant"] = "grant"
    id: str
    tenant: str
    kind: Literal["grant", "refund", "correction"]
    amount_micro_dollars: int
    reason: str
    who: str
    created_at: Time
    request_id: Annotated[str | None, Field(description="Whose charge was refunded.")]


class GrantList(Page):
    """A tenant's grants, refunds and corrections, oldest first."""

    data: list[GrantObject]


class ActObject(BaseModel):
    """Who did what, and when."""

    object: Literal["act"] = "act"
    id: int
    at: Time
    who: Annotated[str, Field(description="`key <id>`, or a user of the command line.")]
    act: str
    tenant: str | None
    subject: Annotated[str, Field(description="Id of what was changed.")]
    details: dict[str, Any]


class ActList(Page):
    """The audit trail, in the order of the acts."""

    data: list[ActObject]


def parse_body(kind: type[Wire], body: bytes) -> Wire:
    """A body of the wire type ``kind``; no body at all is an empty one.

    Raises: InvalidRequest; it names the field.
    """
    fields = {
        name: value for name, value in read_object(body or b"{}").items() if value is not None
    }
    check_texts(fields)
    return validated(kind, fields)


def parse_once(kind: type[Once], body: bytes, idempotency_key: str | None) -> Once:
    """What is to be done once; the header ``Idempotency-Key`` counts as the field.

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
    """The query of a list, which has ``limit`` and ``cursor`` and perhaps ``names`` besides.

    Raises: InvalidRequest.
    """
    return read_parameters(parameters, ("limit", "cursor", *names))
