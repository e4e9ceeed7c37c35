"""The query and the rows of a usage report."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, Field

from serve_app.domain import csv_export
from serve_app.domain.errors import InvalidRequest
from serve_app.domain.units import KeyId, Moment
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
NO_GROUPS = "none"
CSV_ROWS_MAX = 10_000

_JSON, _CSV = "json", "csv"
CSV_TYPE = "text/csv"


class UsageCountsObject(BaseModel):
    """Usage of one group of requests. A field is null if rows are not grouped by it."""

    day: Annotated[str | None, Field(description="UTC date.")] = None
    model: str | None = None
    key: Annotated[str | None, Field(description="Public id of the key.")] = None
    requests: Annotated[int, Field(description="All requests, charged or not.")]
    errors: Annotated[int, Field(description="Requests without an answer, not charged.")]
    documents: int
    documents_not_charged: Annotated[
        int, Field(description="The part of `documents` that was not charged.")
    ]
    tokens: int
    charged_micro_dollars: int


class UsageObject(UsageCountsObject):
    """Usage and latency of one group of requests."""

    latency_ms_p50: Annotated[
        int | None, Field(description="Median latency of charged requests; null if not recorded.")
    ]
    latency_ms_p95: Annotated[
        int | None, Field(description="Their 95th percentile; null if not recorded.")
    ]


class TenantUsageObject(UsageObject):
    """Usage of one group of requests of any tenant."""

    tenant: Annotated[str | None, Field(description="Id of the tenant.")] = None


class UsageList(Page):
    """Groups in ascending order. A group without requests has no row."""

    data: list[UsageObject]


class TenantUsageList(Page):
    """Groups of all tenants, or of one tenant."""

    data: list[TenantUsageObject]


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """The query of a usage report."""

    since: Moment | None
    until: Moment | None
    tenant: str | None
    """Id or name, for administrators."""

    model: str | None
    key: KeyId | None

    group_by: tuple[str, ...]
    limit: int
    after: tuple[str, ...] | None
    """The last group of the previous page."""

    as_csv: bool


def parse_usage(
    parameters: Sequence[tuple[str, str]], accept: str, groups: Sequence[str]
) -> UsageQuery:
    """Parse the query parameters of a report.

    The parameter ``format`` overrides the header ``accept``. The query may select a tenant only if
    ``groups`` include ``tenant``. Raises: InvalidRequest.
    """
    known = ("since", "until", MODEL, KEY, "group_by", LIMIT, CURSOR, "format")
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
        raise InvalidRequest(CURSOR, "is not one that this route returned")
    return UsageQuery(
        since=since,
        until=until,
        tenant=values.get(TENANT),
        model=values.get(MODEL),
        key=KeyId(values[KEY]) if KEY in values else None,
        group_by=by,
        limit=read_limit(values.get(LIMIT), CSV_ROWS_MAX if as_csv else LIMIT_DEFAULT, most),
        after=after,
        as_csv=as_csv,
    )


def next_cursor(query: UsageQuery, last: Sequence[str]) -> str:
    return write_cursor(_order(query.group_by), tuple(last))


def render_csv(kind: type[UsageObject], rows: Sequence[UsageObject]) -> bytes:
    records = (row.model_dump() for row in rows)
    return csv_export.render_csv(list(kind.model_fields), records, line_end="\r\n").encode()


def _order(by: Sequence[str]) -> str:
    return f"usage by {','.join(by)}"


def _group_by(value: str, groups: Sequence[str]) -> tuple[str, ...]:
    if value == NO_GROUPS:
        return ()
    by = tuple(name.strip() for name in value.split(","))
    if not set(by) <= set(groups) or len(set(by)) < len(by):
        raise InvalidRequest(
            "group_by",
            f"must be '{NO_GROUPS}' or a comma-separated list of {', '.join(groups)}, each at most "
            "once",
        )
    return by


def accepted_types(accept: str) -> set[str]:
    return {kind.partition(";")[0].strip().lower() for kind in accept.split(",")}


def _as_csv(form: str | None, accept: str) -> bool:
    if form is None:
        return CSV_TYPE in accepted_types(accept)
    if form not in (_JSON, _CSV):
        raise InvalidRequest("format", f"must be '{_JSON}' or '{_CSV}'")
    return form == _CSV


def _is_moment(value: str) -> bool:
    return value.isascii() and value.isdigit() and len(value) <= 15
