"""Text forms of times, in UTC, and of amounts."""

from datetime import UTC, datetime, timedelta

from serve_app.domain.units import MICRO_DOLLARS_PER_DOLLAR, Moment

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def time_of(moment: Moment) -> datetime:
    return _EPOCH + moment * _MILLISECOND


def moment_of(time: datetime) -> Moment:
    """Return the moment of a time with a time zone, rounded down to milliseconds."""
    return Moment((time - _EPOCH) // _MILLISECOND)


def write_moment(moment: Moment) -> str:
    """Return a text such as ``2026-01-31T12:00:00.000Z``."""
    return f"{time_of(moment).replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"


def write_second(moment: Moment) -> str:
    """Return a text such as ``2026-01-31 12:00:00``."""
    return time_of(moment).strftime("%Y-%m-%d %H:%M:%S")


def write_day(moment: Moment) -> str:
    return time_of(moment).date().isoformat()


def dollars(amount: int, *, decimals_min: int = 2) -> str:
    """Format micro-dollars exactly, such as ``$1,234.500008``."""
    whole, micro_dollars = divmod(abs(amount), MICRO_DOLLARS_PER_DOLLAR)
    sign = "-" if amount < 0 else ""
    return f"{sign}${whole:,}.{f'{micro_dollars:06d}'.rstrip('0').ljust(decimals_min, '0')}"
