"""Descriptions of request parameters."""

from typing import Any

from serve_app.http.headers import IDEMPOTENCY_KEY_PATTERN, TIMEOUT_HEADER
from serve_app.http.request_ids import HEADER as REQUEST_ID_HEADER
from serve_app.protocols.admin import IDEMPOTENCY_KEY_CHARACTERS_MAX
from serve_app.protocols.limits import Limits
from serve_app.protocols.paging import LIMIT_DEFAULT, LIMIT_MAX
from serve_app.protocols.statements import MONTH_PATTERN
from serve_app.protocols.usage import CSV_ROWS_MAX

Json = dict[str, Any]

TIMEOUT_S_MIN = 0.001


def _parameter(place: str, name: str, description: str, **schema: object) -> Json:
    return {
        "name": name,
        "in": place,
        "description": description,
        "schema": {"type": "string"} | schema,
    }


def path_id(description: str) -> Json:
    return _parameter("path", "id", description) | {"required": True}


LIMIT = _parameter(
    "query",
    "limit",
    "Maximum rows per page.",
    type="integer",
    minimum=1,
    maximum=LIMIT_MAX,
    default=LIMIT_DEFAULT,
)
CURSOR = _parameter("query", "cursor", "The `next_cursor` of the previous page.")
TENANT = _parameter("query", "tenant", "Id or name of a tenant.", minLength=1)

LIST = (LIMIT, CURSOR)
USAGE = (
    _parameter("query", "since", "Start, inclusive (ISO 8601 date or time, UTC)."),
    _parameter("query", "until", "End, exclusive (ISO 8601 date or time, UTC)."),
    _parameter("query", "model", "Only requests for this model, by its id or an alias."),
    _parameter("query", "key", "Only requests with this key, by its public id."),
    _parameter(
        "query",
        "group_by",
        "Comma-separated list of `day`, `model`, `key` (and `tenant`, on the admin route) to group "
        "the rows by, or `none` for one row with the totals.",
        default="day",
    ),
    _parameter(
        "query",
        "limit",
        f"Maximum rows per page. JSON: at most {LIMIT_MAX}, by default {LIMIT_DEFAULT}. CSV: at "
        f"most {CSV_ROWS_MAX}, the default.",
        type="integer",
        minimum=1,
        maximum=CSV_ROWS_MAX,
    ),
    _parameter(
        "query",
        "cursor",
        "The `next_cursor` of the previous page (for CSV, its header `x-next-cursor`).",
    ),
    _parameter(
        "query",
        "format",
        "Default: CSV if the header `Accept` names `text/csv`, else JSON.",
        enum=["json", "csv"],
    ),
)
STATEMENT = (
    _parameter("path", "month", "Calendar month (UTC), as `YYYY-MM`.", pattern=MONTH_PATTERN)
    | {"required": True},
    _parameter(
        "query",
        "format",
        "Default: CSV or HTML if the header `Accept` names `text/csv` or `text/html`, else JSON.",
        enum=["json", "csv", "html"],
    ),
)
IDEMPOTENCY_KEY = _parameter(
    "header",
    "Idempotency-Key",
    "Another way to send `idempotency_key`.",
    minLength=1,
    maxLength=IDEMPOTENCY_KEY_CHARACTERS_MAX,
)
IDEMPOTENT_SCORING = _parameter(
    "header",
    "Idempotency-Key",
    "A repeat with the same key, route and body within 24 hours gets the first answer and is not "
    "charged.",
    pattern=IDEMPOTENCY_KEY_PATTERN,
)
REQUEST_ID = _parameter(
    "header",
    REQUEST_ID_HEADER,
    "An id for the answer and the log, of 1 to 128 letters, digits and `._:-`; others are ignored.",
)


def timeout(limits: Limits) -> Json:
    return _parameter(
        "header",
        TIMEOUT_HEADER,
        "Timeout of the request in seconds, as a decimal number.",
        type="number",
        minimum=TIMEOUT_S_MIN,
        maximum=limits.request_timeout_s_max,
        default=limits.request_timeout_s,
    )
