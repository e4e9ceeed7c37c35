"""UTC days and months as numbers."""

from datetime import UTC, datetime

from serve_app.domain.formats import moment_of, time_of
from serve_app.domain.units import Moment

MILLISECONDS_PER_DAY = 86_400_000


def day_of(moment: Moment) -> Moment:
    """Return the first moment of the day."""
    return Moment(moment - moment % MILLISECONDS_PER_DAY)


def month_of(moment: Moment) -> int:
    """Return the number yyyymm."""
    time = time_of(moment)
    return time.year * 100 + time.month


def bounds_of(month: int) -> tuple[Moment, Moment]:
    """Return the first moments of the month yyyymm and of the next one. Raises: ValueError."""
    year, number = divmod(month, 100)
    begin = datetime(year, number, 1, tzinfo=UTC)
    end = datetime(year + number // 12, number % 12 + 1, 1, tzinfo=UTC)
    return moment_of(begin), moment_of(end)
