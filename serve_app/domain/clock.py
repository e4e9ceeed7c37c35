"""The clock, which is passed to code that needs the time."""

import time
from typing import Protocol

from serve_app.domain.units import Instant, Moment


class Clock(Protocol):
    """Monotonic time and wall time."""

    def instant(self) -> Instant:
        """Return monotonic seconds, for durations and deadlines."""

    def moment(self) -> Moment:
        """Return milliseconds since 1970 UTC, for stored data. The system clock may be set back."""


class SystemClock:
    """The clocks of the operating system."""

    def instant(self) -> Instant:
        return Instant(time.monotonic())

    def moment(self) -> Moment:
        return Moment(time.time_ns() // 1_000_000)


def unix_ns(instant: Instant) -> int:
    """Return an instant of `SystemClock` as nanoseconds since 1970 UTC."""
    return time.time_ns() - round((time.monotonic() - instant) * 1e9)
