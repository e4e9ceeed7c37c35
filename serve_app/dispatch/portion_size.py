"""How large a portion of one model's work should be. Pure: no clock, no asyncio.

A portion that runs cannot be overtaken: whoever comes next waits for it. So a portion is what a
replica scores in `RUN_S`, as its batches tell: thousands of tokens on a card, hundreds on a CPU.
"""

from serve_app.domain.model import PortionScores
from serve_app.domain.units import Tokens

RUN_S = 0.15
"""Shorter ones would not be noticed by people, and the calls to replicas would begin to count."""

TOKENS_MIN = 512
"""Also at first: what is known of a replica is told by its answers."""

MEMORY = 0.8
"""Share of what was known that stays when a batch tells something else."""


def tokens_in_time(tokens_per_s: float) -> int:
    """What a replica of this speed scores in `RUN_S`, or `TOKENS_MIN` if that is more."""
    return max(TOKENS_MIN, round(tokens_per_s * RUN_S))


class PortionSize:
    """Follows the speed of one model's replicas, which are taken to be alike."""

    def __init__(self, tokens_max: Tokens) -> None:
        self._tokens_max = tokens_max
        self._tokens_per_s: float | None = None

    @property
    def tokens_per_s(self) -> float | None:
        """Of one replica; ``None`` before the first answer that tells."""
        return self._tokens_per_s

    @property
    def tokens(self) -> Tokens:
        """Most tokens of a portion, but for a single pair that is longer."""
        return Tokens(min(tokens_in_time(self._tokens_per_s or 0.0), self._tokens_max))

    def answered(self, scores: PortionScores) -> None:
        """Learn from a portion's batch, unless it was too small to show a card's speed."""
        if scores.batch_tokens < self.tokens / 2 or scores.run_s <= 0:
            return
        tokens_per_s = scores.batch_tokens / scores.run_s
        known = self._tokens_per_s
        if known is not None:
            tokens_per_s = MEMORY * known + (1 - MEMORY) * tokens_per_s
        self._tokens_per_s = tokens_per_s
