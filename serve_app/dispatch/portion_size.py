"""Size of the portions of one model's jobs. Pure: no clock, no asyncio.

A running portion cannot be preempted, and new jobs wait for it. So a portion is limited to the
tokens that a replica scores in `RUN_S`, measured from its batches: thousands on a GPU, hundreds on
a CPU.
"""

from serve_app.domain.model import PortionScores
from serve_app.domain.units import Tokens

RUN_S = 0.15
"""Target run time of a portion. Shorter portions would bring no gain that people notice, and the
overhead of calls to replicas would start to matter."""

TOKENS_MIN = 512
"""Smallest limit, and the initial one: a replica's speed is known only from its answers."""

MEMORY = 0.8
"""Weight of the previous estimate when a new batch is measured."""


def tokens_in_time(tokens_per_s: float) -> int:
    """Return the tokens that a replica of this speed scores in `RUN_S`, at least `TOKENS_MIN`."""
    return max(TOKENS_MIN, round(tokens_per_s * RUN_S))


class PortionSize:
    """Tracks the speed of one model's replicas, which are assumed to be equal."""

    def __init__(self, tokens_max: Tokens) -> None:
        self._tokens_max = tokens_max
        self._tokens_per_s: float | None = None

    @property
    def tokens_per_s(self) -> float | None:
        """Speed of one replica; ``None`` before the first batch that is large enough."""
        return self._tokens_per_s

    @property
    def tokens(self) -> Tokens:
        """Most tokens of a portion, except for a single pair that is longer."""
        return Tokens(min(tokens_in_time(self._tokens_per_s or 0.0), self._tokens_max))

    def answered(self, scores: PortionScores) -> None:
        """Learn from a portion's batch, unless it was too small to show the device's speed."""
        if scores.batch_tokens < self.tokens / 2 or scores.run_s <= 0:
            return
        tokens_per_s = scores.batch_tokens / scores.run_s
        known = self._tokens_per_s
        if known is not None:
            tokens_per_s = MEMORY * known + (1 - MEMORY) * tokens_per_s
        self._tokens_per_s = tokens_per_s
