"""The clock, which is passed to code that needs the time.

Only commands and a few timeouts of blocking calls read a clock directly.
"""

import time
from typing import Protocol

from serve_app.domain.units import Instant, Moment


class Clock(Protocol):
    """A source of monotonic time and of wall time."""

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
    """Return the wall time of an instant of `SystemClock`, in nanoseconds since 1970 UTC."""
    return time.time_ns() - round((time.monotonic() - instant) * 1e9)
