"""Times on the wire: ISO 8601, in UTC unless an offset is given."""

from datetime import UTC, datetime, timedelta

from serve_app.domain.errors import InvalidRequest
from serve_app.domain.units import Moment

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def read_moment(name: str, value: str | None) -> Moment | None:
    """Return the moment in the parameter ``name``; a date means its first moment.

    Raises: InvalidRequest.
    """
    if value is None:
        return None
    try:
        time = datetime.fromisoformat(value)
        aware = time if time.tzinfo else time.replace(tzinfo=UTC)
        moment = (aware - _EPOCH) // _MILLISECOND
    except (ValueError, OverflowError):
        raise InvalidRequest(
            name, "must be a date or a time such as 2026-01-31 or 2026-01-31T12:00:00Z"
        ) from None
    if moment < 0:
        raise InvalidRequest(name, "must not be before 1970")
    return Moment(moment)


def write_moment(moment: Moment) -> str:
    """Return ``moment`` with milliseconds, such as ``2026-01-31T12:00:00.000Z``."""
    time = _EPOCH + moment * _MILLISECOND
    return f"{time.replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"


def write_day(moment: Moment) -> str:
    """Return the UTC date of ``moment``."""
    return (_EPOCH + moment * _MILLISECOND).date().isoformat()
