"""Items, batches and batch sizes for Ray's batch queue. Pure.

A batch holds at most the replica's limit, and at most the tokens that the device scores in the
target time of a portion. A slow device gains nothing from larger batches: a batch would hold all
portions that wait, and the device would then be idle until others arrive.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from serve_app.batching.throughput import ThroughputMeter
from serve_app.domain.model import Portion
from serve_app.domain.portion_size import tokens_in_time
from serve_app.domain.units import Instant, Seconds, Tokens

FULL = 1_000_000
"""Size of a full batch in the unit of Ray's batch queue."""

IDLE_WAIT_S = 0.003
"""Time for which the first portion of a batch waits for others while the device is idle."""


@dataclass(frozen=True, slots=True, eq=False)
class Waiting:
    """A portion in the batch queue, compared by identity."""

    portion: Portion
    since: Instant
    traceparent: str = ""
    """Trace context of the call; empty if it is not traced."""


class FlushMarker:
    """An item without a portion. It fills its batch, which then starts immediately."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A finished batch. It may have waited for the previous one before it ``started``."""

    started: Instant
    run_s: Seconds
    tokens: Tokens


@dataclass(frozen=True, slots=True, eq=False)
class Running:
    """A batch that was passed to the engine."""

    since: Instant
    tokens: Tokens


def batch_tokens(items: Iterable[Waiting | FlushMarker]) -> Tokens:
    return Tokens(sum(item.portion.tokens for item in items if isinstance(item, Waiting)))


def batch_limit(wanted: object, least: int, most: int) -> Tokens:
    """Return the limit nearest to ``wanted``; ``most`` if that is not a whole number."""
    try:
        number = int(str(wanted).removesuffix(".0"))  # YAML may contain 600, 600.0 or "600".
    except ValueError:
        return Tokens(most)
    return Tokens(min(max(number, least), most))


class BatchSize:
    """Current capacity of a batch, and the part of it that items fill."""

    def __init__(self, tokens_max: Tokens, meter: ThroughputMeter) -> None:
        self.tokens_max = tokens_max
        """``tokens_max``: the replica's limit, which may change; no portion is larger."""

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
        """Size function of the batch queue, in parts of `FULL`. Never raises.

        A `FlushMarker` fills the batch; no item fits behind it.
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
        """Return whether ``waiting`` may not fill a batch, by any limit since the last true result.
        A full batch needs no `FlushMarker`."""
        short = batch_tokens(waiting) < max(self._judged_by, self.tokens)
        if short:
            self._judged_by = 0
        return short
