"""Monthly statements on the wire."""

import re
from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from serve_app.domain.errors import InvalidRequest
from serve_app.protocols.admin import GrantObject, Time
from serve_app.protocols.paging import read_parameters
from serve_app.protocols.usage import CSV_TYPE, UsageCountsObject, accepted_types

JSON, CSV, HTML = "json", "csv", "html"
HTML_TYPE = "text/html"
MONTH_PATTERN = "^[0-9]{4}-(0[1-9]|1[0-2])$"
YEARS = range(1970, 9_999)

_TYPES = {CSV: CSV_TYPE, HTML: HTML_TYPE}


class StatementObject(BaseModel):
    """A month of the tenant: `opening + granted - charged == closing`, all in micro-dollars."""

    object: Literal["statement"] = "statement"
    tenant: Annotated[str, Field(description="The tenant's id.")]
    tenant_name: str
    month: Annotated[str, Field(description="Calendar month (UTC), as `YYYY-MM`.")]
    so_far: Annotated[
        bool, Field(description="Whether the month is not complete, so amounts may still change.")
    ]
    until: Annotated[Time, Field(description="End of the month, or the current time.")]
    opening_micro_dollars: int
    granted_micro_dollars: Annotated[int, Field(description="Sum of `grants`.")]
    charged_micro_dollars: Annotated[int, Field(description="Sum of `usage`.")]
    closing_micro_dollars: int
    grants: Annotated[
        list[GrantObject], Field(description="Grants, refunds and corrections, oldest first.")
    ]
    usage: Annotated[list[UsageCountsObject], Field(description="By day, then by model.")]


def parse_month(text: str) -> int:
    """Return ``YYYY-MM`` as the number yyyymm. Raises: InvalidRequest."""
    if not re.fullmatch(MONTH_PATTERN, text) or int(text[:4]) not in YEARS:
        raise InvalidRequest("month", "must be a month such as 2026-01")
    return int(text[:4]) * 100 + int(text[5:])


def parse_statement(
    parameters: Iterable[tuple[str, str]], accept: str, *names: str
) -> tuple[str, dict[str, str]]:
    """Return the format of a statement, and the query parameters ``names`` that are present.

    The parameter ``format`` overrides the header ``accept``. Raises: InvalidRequest.
    """
    values = read_parameters(parameters, ("format", *names))
    form = values.pop("format", None)
    if form is None:
        wanted = accepted_types(accept)
        form = next((name for name, kind in _TYPES.items() if kind in wanted), JSON)
    if form not in (JSON, *_TYPES):
        raise InvalidRequest("format", f"must be '{JSON}', '{CSV}' or '{HTML}'")
    return form, values
