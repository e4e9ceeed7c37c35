"""Minimum numbers of replicas by time of day, for loads that are known in advance. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Self
from zoneinfo import ZoneInfo

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@dataclass(frozen=True, slots=True)
class Floor:
    """At least ``replicas`` from ``since`` until ``until``. ``days`` are those of ``since``."""

    since: time
    until: time
    """On the next day, if it is not after ``since``."""

    replicas: int
    days: frozenset[int]
    zone: ZoneInfo

    @classmethod
    def of(
        cls,
        since: str,
        until: str,
        replicas: int,
        days: Iterable[str] = DAYS,
        time_zone: str = "UTC",
    ) -> Self:
        """Return a config file's floor, such as ``08:45``, ``19:00``, 6. Raises: ValueError."""
        if replicas < 1:
            raise ValueError("the replicas of a floor must be at least 1")
        wrong = [day for day in days if day not in DAYS]
        if wrong:
            raise ValueError(f"{wrong[0]!r} is not one of {', '.join(DAYS)}")
        try:
            zone = ZoneInfo(time_zone)
        except (KeyError, OSError) as error:
            raise ValueError(f"the time zone {time_zone!r} is not known here") from error
        return cls(
            time.fromisoformat(since),
            time.fromisoformat(until),
            replicas,
            frozenset(map(DAYS.index, days)),
            zone,
        )

    def holds(self, seconds: float) -> bool:
        """Return whether the floor applies at a time in ``seconds`` since 1970."""
        now = datetime.fromtimestamp(seconds, UTC).astimezone(self.zone)
        clock, today = now.time(), now.weekday()
        if self.since < self.until:
            return today in self.days and self.since <= clock < self.until
        yesterday = (now - timedelta(days=1)).weekday()
        return (today in self.days and clock >= self.since) or (
            yesterday in self.days and clock < self.until
        )


def floor_at(floors: Iterable[Floor], seconds: float) -> int:
    """Return the highest number that applies, or 0."""
    return max((each.replicas for each in floors if each.holds(seconds)), default=0)
