"""What waits, what runs, and how large a batch may be, as Ray's batch queue is told. Pure.

A batch holds at most the replica's limit, or as many tokens as the device scores in the time of a
portion: a slow device gains nothing by more, and would have nothing to go on with while the answers
of all are on their way.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from serve_app.dispatch.portion_size import tokens_in_time
from serve_app.dispatch.scaling import Speedometer
from serve_app.domain.model import Portion
from serve_app.domain.units import Instant, Seconds, Tokens

WHOLE = 1_000_000
"""The size of a full batch, as Ray is told."""


@dataclass(frozen=True, slots=True, eq=False)
class Waiting:
    """A portion in the batch queue; another one with the same pairs is not the same."""

    portion: Portion
    since: Instant


class Wake:
    """An item that scores nothing: it fills the batch that it joins, so that it starts at once."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch that has run; before that it may have waited for the one before it."""

    started: Instant
    run_s: Seconds
    tokens: Tokens


@dataclass(frozen=True, slots=True, eq=False)
class Running:
    """A batch that the engine has."""

    since: Instant
    tokens: Tokens


def batch_tokens(items: Iterable[Waiting | Wake]) -> Tokens:
    """The sum of the portions' tokens."""
    return Tokens(sum(item.portion.tokens for item in items if isinstance(item, Waiting)))


def batch_limit(wanted: object, least: int, most: int) -> Tokens:
    """The limit nearest to what is wanted; ``most`` where that is no whole number."""
    try:
        number = int(str(wanted).removesuffix(".0"))  # YAML has 600, 600.0 and "600".
    except ValueError:
        return Tokens(most)
    return Tokens(min(max(number, least), most))


class BatchSize:
    """What a batch may hold at the moment, and how much of that items fill."""

    def __init__(self, tokens_max: Tokens, speedometer: Speedometer) -> None:
        self.tokens_max = tokens_max
        """The replica's limit, which may change; no portion is larger."""

        self._speedometer = speedometer
        self._judged_by = 0

    @property
    def tokens(self) -> int:
        """What a batch may hold now, but for a single portion that is larger."""
        tokens_per_s = self._speedometer.tokens_per_s
        if tokens_per_s is None:
            return self.tokens_max
        return min(self.tokens_max, tokens_in_time(tokens_per_s))

    def of(self, items: Sequence[Waiting | Wake]) -> int:
        """The size function of the batch queue, in parts of a `WHOLE`. Never raises.

        A `Wake` fills the batch to its brim; nothing fits behind it.
        """
        limit = self.tokens
        self._judged_by = max(self._judged_by, limit)
        size = math.ceil(WHOLE * batch_tokens(items) / limit)
        if len(items) == 1:
            return WHOLE if isinstance(items[0], Wake) else min(size, WHOLE)
        if any(isinstance(item, Wake) for item in items[:-1]):
            return WHOLE + 1
        return max(size, WHOLE) if isinstance(items[-1], Wake) else size

    def may_be_short(self, waiting: Iterable[Waiting]) -> bool:
        """Whether ``waiting`` may hold no full batch, by any limit it was judged by since this was
        last true. If it must hold one, that one starts by itself."""
        short = batch_tokens(waiting) < max(self._judged_by, self.tokens)
        if short:
            self._judged_by = 0
        return short
