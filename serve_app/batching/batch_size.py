"""Items, batches and batch sizes for Ray's batch queue. Pure.

A batch holds at most the replica's limit, and at most the tokens that the device scores in the
target time of a portion. A larger batch would hold all portions that wait, and a slow device would
then be idle until others arrive.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from serve_app.batching.throughput import ThroughputMeter
from serve_app.domain.model import Portion
from serve_app.domain.portion_size import tokens_in_time
from serve_app.domain.units import Instant, Seconds, Tokens

FULL = 1_000_000
"""Size of a full batch for Ray's batch queue."""

IDLE_WAIT_S = 0.003
"""The first portion of a batch waits this long for others while the device is idle."""


@dataclass(frozen=True, slots=True, eq=False)
class Waiting:
    """A portion in the batch queue, compared by identity."""

    portion: Portion
    since: Instant
    traceparent: str = ""
    """Empty if the call is not traced."""


class FlushMarker:
    """An item that fills its batch, which then starts immediately."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A finished batch, which may have waited for the previous one before it ``started``."""

    started: Instant
    run_s: Seconds
    tokens: Tokens


@dataclass(frozen=True, slots=True, eq=False)
class Running:
    """A batch in the engine."""

    since: Instant
    tokens: Tokens


def batch_tokens(items: Iterable[Waiting | FlushMarker]) -> Tokens:
    return Tokens(sum(item.portion.tokens for item in items if isinstance(item, Waiting)))


def batch_limit(wanted: object, least: int, most: int) -> Tokens:
    """Return the limit nearest to ``wanted``; ``most`` if that is not a whole number."""
    try:
        number = int(str(wanted).removesuffix(".0"))  # YAML may contain 600.0 or "600".
    except ValueError:
        return Tokens(most)
    return Tokens(min(max(number, least), most))


class BatchSize:
    """The size of batches, which adapts to the device's speed."""

    def __init__(self, tokens_max: Tokens, meter: ThroughputMeter) -> None:
        self.tokens_max = tokens_max
        """The replica's limit, which may change; no portion is larger."""

        self._meter = meter
        self._judged_by = 0

    @property
    def tokens(self) -> int:
        """Most tokens of a batch now, except for a single portion that is larger."""
        tokens_per_s = self._meter.tokens_per_s
        if tokens_per_s is None:
            return self.tokens_max
        return min(self.tokens_max, tokens_in_time(tokens_per_s))

    def of(self, items: Sequence[Waiting | FlushMarker]) -> int:
        """Return the size of ``items`` for the batch queue, in parts of `FULL`. Never raises.

        No item fits behind a `FlushMarker`.
        """
        limit = self.tokens
        self._judged_by = max(self._judged_by, limit)
        size = math.ceil(FULL * batch_tokens(items) / limit)
        if len(items) == 1:
            return FULL if isinstance(items[0], FlushMarker) else min(size, FULL)
        if any(isinstance(item, FlushMarker) for item in items[:-1]):
            return FULL + 1
        return max(size, FULL) if isinstance(items[-1], FlushMarker) else size

    def may_be_short(self, waiting: Iterable[Waiting]) -> bool:
        """Return whether ``waiting`` may not fill a batch.

        Any limit since the last true result counts.
        """
        short = batch_tokens(waiting) < max(self._judged_by, self.tokens)
        if short:
            self._judged_by = 0
        return short
