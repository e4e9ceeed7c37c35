"""Estimate of the throughput of one model as this gateway sees it."""

from collections import deque

from serve_app.domain.units import Instant, Seconds

BUSY_TOKENS = 16_384
BUSY_S = 0.75
"""A model with less admitted work (in tokens, or in seconds of work if that is less) is not busy:
its throughput reflects the demand and not the speed of the replicas."""

WINDOW_S = 10.0
VALID_S = 2.0
"""Busy time after which an estimate is valid."""

SILENCE_S = 3.0
SILENCE_RUNS = 3
"""A busy model that returns no scores for `SILENCE_S`, or for this many batch run times if that is
longer, has no replica, and its throughput is not measured."""

IDLE_S_MAX = 60.0
"""The estimate expires after this time with little work: the replicas may have changed."""


class ThroughputEstimator:
    """Throughput of one model in tokens/s while it is busy."""

    def __init__(self) -> None:
        self._busy_s = 0.0  # Before `_since`.
        self._since: Instant | None = None
        # Busy time and tokens of each answer. The first one only starts the time.
        self._scored = deque([(0.0, 0)])
        self._tokens = 0
        self._answered_s = 0.0  # Busy time at the last answer.
        self._silence_s = SILENCE_S
        self._idle_since: Instant | None = None
        self._known: float | None = None

    def admitted(self, tokens: float, now: Instant) -> None:
        was_busy = self._since is not None
        self._busy_s = self._busy_until(now)
        known = self._known
        enough = BUSY_TOKENS if known is None else min(BUSY_TOKENS, BUSY_S * known)
        self._since = now if tokens >= enough else None
        if was_busy and self._since is None:
            self._idle_since = now

    def scored(self, tokens: int, run_s: Seconds, now: Instant) -> None:
        self._silence_s = max(SILENCE_S, SILENCE_RUNS * run_s)
        busy_s = self._busy_until(now)
        if busy_s - self._answered_s > self._silence_s:
            self._discard()
            self._since = None if self._since is None else now
            busy_s = 0.0
        self._answered_s = busy_s
        if self._since is not None:
            self._scored.append((busy_s, tokens))
            self._tokens += tokens

    def tokens_per_s(self, now: Instant) -> float | None:
        """Return the throughput of the last `WINDOW_S` busy seconds, or else the last known."""
        idle_since = None if self._since is not None else self._idle_since
        if idle_since is not None and now - idle_since > IDLE_S_MAX:
            self._discard()
            self._idle_since = self._known = None
        if self._busy_until(now) - self._answered_s > self._silence_s:
            return self._known
        # Measure between answers: the number of large answers in a fixed window is arbitrary.
        until_s = self._scored[-1][0]
        while len(self._scored) > 1 and self._scored[1][0] <= until_s - WINDOW_S:
            self._scored.popleft()
            self._tokens -= self._scored[0][1]
        span_s = until_s - self._scored[0][0]
        if span_s >= VALID_S:
            self._known = self._tokens / span_s
        return self._known

    def _discard(self) -> None:
        """Keep only the last known throughput."""
        self._scored = deque([(0.0, 0)])
        self._tokens = 0
        self._busy_s = self._answered_s = 0.0

    def _busy_until(self, now: Instant) -> float:
        return self._busy_s + (0.0 if self._since is None else now - self._since)
