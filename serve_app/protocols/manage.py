"""Wire types of the routes by which a tenant manages its own account."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from serve_app.protocols.admin import GrantList, KeyObject, LimitsObject, NewKeyFields

OwnScopes = Annotated[list[Literal["rerank", "manage"]], Field(min_length=1, max_length=10)]


class OwnKeyCreate(NewKeyFields):
    """A new API key of the tenant."""

    scopes: OwnScopes = ["rerank"]  # noqa: RUF012 - a field of pydantic, which copies it


class LimitUseObject(BaseModel):
    """How much of each limit is used now. Null without a limit: nothing is counted then."""

    requests_per_minute: Annotated[int | None, Field(description="In the last 60 seconds.")]
    documents_per_minute: Annotated[int | None, Field(description="In the last 60 seconds.")]
    concurrent_requests: int | None
    month_spent_micro_dollars: Annotated[
        int | None, Field(description="Charged or reserved in this calendar month (UTC).")
    ]


class CallingKeyObject(KeyObject):
    """The API key of the request, and how close it is to its limits and to its tenant's."""

    used: LimitUseObject
    tenant_limits: Annotated[
        LimitsObject, Field(description="All keys of the tenant share these limits.")
    ]
    tenant_used: LimitUseObject


class CreditsObject(BaseModel):
    """The credit of the tenant."""

    object: Literal["credits"] = "credits"
    tenant: Annotated[str, Field(description="The tenant's id.")]
    tenant_name: str
    available_micro_dollars: Annotated[int, Field(description="Credit for new requests.")]
    reserved_micro_dollars: Annotated[
        int,
        Field(description="Reserved for running requests; the uncharged part is returned."),
    ]
    month: Annotated[str, Field(description="The current calendar month (UTC), as `YYYY-MM`.")]
    month_spent_micro_dollars: Annotated[
        int, Field(description="Charged or reserved in this month.")
    ]
    monthly_budget_micro_dollars: Annotated[
        int | None, Field(description="Maximum spending per month. Null means no limit.")
    ]
    alerts_below_micro_dollars: list[int]
    grants: GrantList
