"""Throughput of one replica, measured from its batches. Pure."""

from serve_app.domain.portion_size import RUN_S
from serve_app.domain.units import Instant, Seconds, Tokens

WORK_KEPT = 0.9
"""Factor by which each batch reduces the weight of earlier ones in the speed."""

LARGEST_KEPT = 0.95
"""Factor by which each batch reduces the largest size seen. A short batch of less than half that
size shows the minimum time of a pass, and is ignored."""


class ThroughputMeter:
    """Measures a replica's speed and how busy it is."""

    def __init__(self, now: Instant) -> None:
        self._tokens = self._run_s = self._busy_s = 0.0
        self._largest = 0.0
        self._asked_at = now

    def ran(self, tokens: Tokens, run_s: Seconds) -> None:
        self._busy_s += run_s
        if tokens > 2 * self._largest:  # All earlier batches were small.
            self._tokens = self._run_s = 0.0
        self._largest = max(float(tokens), LARGEST_KEPT * self._largest)
        if tokens and (tokens >= self._largest / 2 or run_s >= RUN_S):
            self._tokens = WORK_KEPT * self._tokens + tokens
            self._run_s = WORK_KEPT * self._run_s + run_s

    @property
    def tokens_per_s(self) -> float | None:
        """Speed over recent large batches; ``None`` before anything was scored."""
        return self._tokens / self._run_s if self._run_s > 0 else None

    def busy_ratio(self, now: Instant) -> float:
        """Return the run time of batches that ended since the last call, over the elapsed time."""
        elapsed_s = now - self._asked_at
        ratio = self._busy_s / elapsed_s if elapsed_s > 0 else 0.0
        self._busy_s, self._asked_at = 0.0, now
        return ratio
