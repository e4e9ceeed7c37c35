"""Days and months of UTC, as numbers. Pure."""

from datetime import UTC, datetime

from serve_app.domain.units import Moment

MILLISECONDS_PER_DAY = 86_400_000


def day_of(moment: Moment) -> Moment:
    """The first moment of the day."""
    return Moment(moment - moment % MILLISECONDS_PER_DAY)


def month_of(moment: Moment) -> int:
    """yyyymm."""
    time = datetime.fromtimestamp(moment // 1_000, UTC)
    return time.year * 100 + time.month


def bounds_of(month: int) -> tuple[Moment, Moment]:
    """The first moment of the month yyyymm, and that of the next one.

    Raises:
        ValueError: There is no such month.
    """
    year, number = divmod(month, 100)
    begin = datetime(year, number, 1, tzinfo=UTC)
    end = datetime(year + number // 12, number % 12 + 1, 1, tzinfo=UTC)
    return _moment(begin), _moment(end)


def _moment(time: datetime) -> Moment:
    return Moment(int(time.timestamp()) * 1_000)
