"""Time, as something handed in. Nobody else in the package reads a clock."""

import time
from typing import Protocol

from serve_app.domain.units import Instant, Moment


class Clock(Protocol):
    """Both kinds of time the service needs."""

    def instant(self) -> Instant:
        """Seconds of a monotonic clock, for measuring and for deadlines."""

    def moment(self) -> Moment:
        """Milliseconds since 1970 UTC, for rows other processes read; may step backwards."""


class SystemClock:
    """The machine's own clocks."""

    def instant(self) -> Instant:
        return Instant(time.monotonic())

    def moment(self) -> Moment:
        return Moment(time.time_ns() // 1_000_000)
