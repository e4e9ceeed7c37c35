"""Count the recent answers of one gateway by error code, for operators without Prometheus."""

from collections import Counter, deque

from serve_app.domain.clock import Clock
from serve_app.domain.units import Instant

SLICE_S = 60.0
SLICES = 60


class RecentCodes:
    """Counts codes over the last hour, minute by minute. Not thread-safe."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._slices: deque[tuple[Instant, Counter[str]]] = deque(maxlen=SLICES)

    def add(self, code: str) -> None:
        now = self._clock.instant()
        if not self._slices or now - self._slices[-1][0] >= SLICE_S:
            self._slices.append((now, Counter()))
        self._slices[-1][1][code] += 1

    def counts(self) -> dict[str, int]:
        """Return the answers of the last hour, the most frequent code first."""
        since = self._clock.instant() - SLICES * SLICE_S
        total: Counter[str] = Counter()
        for began, codes in self._slices:
            if began > since:
                total.update(codes)
        return dict(total.most_common())
