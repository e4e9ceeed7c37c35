"""Times of requests: ISO 8601, in UTC unless an offset is given."""

from datetime import UTC, datetime

from serve_app.domain.errors import InvalidRequest
from serve_app.domain.formats import moment_of
from serve_app.domain.units import Moment


def read_moment(name: str, value: str | None) -> Moment | None:
    """A date means its first moment. Raises: InvalidRequest."""
    if value is None:
        return None
    try:
        time = datetime.fromisoformat(value)
        aware = time if time.tzinfo else time.replace(tzinfo=UTC)
        moment = moment_of(aware)
    except (ValueError, OverflowError):
        raise InvalidRequest(
            name, "must be a date or a time such as 2026-01-31 or 2026-01-31T12:00:00Z"
        ) from None
    if moment < 0:
        raise InvalidRequest(name, "must not be before 1970")
    return moment
