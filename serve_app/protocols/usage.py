"""Usage on the wire: the query of a report, and its rows as JSON or CSV."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, Field

from serve_app.domain import csv_export
from serve_app.domain.errors import InvalidRequest
from serve_app.domain.units import Moment
from serve_app.protocols.paging import (
    CURSOR,
    LIMIT,
    LIMIT_DEFAULT,
    LIMIT_MAX,
    Page,
    read_cursor,
    read_limit,
    read_parameters,
    write_cursor,
)
from serve_app.protocols.times import read_moment

DAY, MODEL, KEY, TENANT = "day", "model", "key", "tenant"
OWN_GROUPS = (DAY, MODEL, KEY)
ALL_GROUPS = (DAY, TENANT, MODEL, KEY)
CSV_ROWS_MAX = 10_000

_JSON, _CSV = "json", "csv"
CSV_TYPE = "text/csv"


class UsageObject(BaseModel):
    """What one group of requests came to; null where it is not grouped by that."""

    day: Annotated[str | None, Field(description="A date, UTC.")] = None
    model: str | None = None
    key: Annotated[str | None, Field(description="A key's public id.")] = None
    requests: Annotated[int, Field(description="Answered or not, charged or not.")]
    errors: Annotated[int, Field(description="Ended without an answer, and were not charged.")]
    documents: int
    documents_not_charged: Annotated[
        int, Field(description="Of these, computed for requests that were not charged.")
    ]
    tokens: int
    charged_micro_dollars: int


class TenantUsageObject(UsageObject):
    """The same, of any tenant."""

    tenant: Annotated[str | None, Field(description="A tenant's id.")] = None


class UsageList(Page):
    """Groups in their own order; a group without requests has no row."""

    data: list[UsageObject]


class TenantUsageList(Page):
    """Groups of all tenants, or of one."""

    data: list[TenantUsageObject]


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """What a report is to tell."""

    since: Moment | None
    until: Moment | None
    tenant: str | None
    """As the client named it; only where other tenants may be asked for."""

    group_by: tuple[str, ...]
    limit: int
    after: tuple[str, ...] | None
    """The last group of the page before."""

    as_csv: bool


def parse_usage(
    parameters: Sequence[tuple[str, str]], accept: str, groups: Sequence[str]
) -> UsageQuery:
    """Read a query.

    Args:
        parameters: Of the URL, in any order.
        accept: The header; it may ask for CSV, and ``format`` has the last word.
        groups: What may be grouped by; with ``tenant`` among them, one may be chosen as well.

    Raises: InvalidRequest; it names the parameter.
    """
    known = ("since", "until", "group_by", LIMIT, CURSOR, "format")
    own = TENANT not in groups
    values = read_parameters(parameters, known if own else (*known, TENANT))
    since, until = (read_moment(name, values.get(name)) for name in ("since", "until"))
    if since is not None and until is not None and until <= since:
        raise InvalidRequest("until", "must be after 'since'")
    by = _group_by(values.get("group_by", DAY), groups)
    as_csv = _as_csv(values.get("format"), accept)
    most = CSV_ROWS_MAX if as_csv else LIMIT_MAX
    place = read_cursor(values.get(CURSOR), _order(by), [str] * len(by))
    after = None if place is None else tuple(str(value) for value in place)
    if after is not None and DAY in by and not _is_moment(after[by.index(DAY)]):
        raise InvalidRequest(CURSOR, "is not one that this route gave")
    return UsageQuery(
        since=since,
        until=until,
        tenant=values.get(TENANT),
        group_by=by,
        limit=read_limit(values.get(LIMIT), CSV_ROWS_MAX if as_csv else LIMIT_DEFAULT, most),
        after=after,
        as_csv=as_csv,
    )


def next_cursor(query: UsageQuery, last: Sequence[str]) -> str:
    """For the page behind the group ``last``."""
    return write_cursor(_order(query.group_by), tuple(last))


def render_csv(kind: type[UsageObject], rows: Sequence[UsageObject]) -> bytes:
    """A line of names, then one for each row; a field that is null is empty."""
    records = (row.model_dump() for row in rows)
    return csv_export.render_csv(list(kind.model_fields), records, line_end="\r\n").encode()


def _order(by: Sequence[str]) -> str:
    return f"usage by {','.join(by)}"


def _group_by(value: str, groups: Sequence[str]) -> tuple[str, ...]:
    by = tuple(name.strip() for name in value.split(","))
    if not set(by) <= set(groups) or len(set(by)) < len(by):
        raise InvalidRequest(
            "group_by", f"must be some of {', '.join(groups)}, each once, with commas between"
        )
    return by


def _as_csv(form: str | None, accept: str) -> bool:
    if form is None:
        wanted = {kind.partition(";")[0].strip().lower() for kind in accept.split(",")}
        return CSV_TYPE in wanted
    if form not in (_JSON, _CSV):
        raise InvalidRequest("format", f"must be '{_JSON}' or '{_CSV}'")
    return form == _CSV


def _is_moment(value: str) -> bool:
    return value.isascii() and value.isdigit() and len(value) <= 15
