"""When a portion is late, and how much work may be done twice for late portions. Pure.

A replica that hangs or is cut off causes no error, so its portions are sent to others. The budget
keeps that from doubling the work when all replicas are slow.
"""

from serve_app.domain.units import Seconds, Tokens

LATE_TIMES = 5.0
"""A portion is late after so many times the usual time of an answer."""

LATE_S_MIN = 1.0
LATE_S_MAX = 5.0
USUAL_S_FIRST = 1.0
"""The usual time before any answer."""

SMOOTHING = 0.1
"""Weight of the newest answer in the usual time."""

EXTRA_SHARE = 0.02
"""Tokens that may be sent twice, per answered token."""

EXTRA_PORTIONS_MAX = 8
"""Most full portions in the budget, which it also has at the start."""


class Lateness:
    """The usual time of one model's answers, and the budget."""

    def __init__(self, portion_tokens_max: Tokens) -> None:
        self._usual_s = USUAL_S_FIRST
        self._budget_max = float(EXTRA_PORTIONS_MAX * portion_tokens_max)
        self._budget = self._budget_max

    @property
    def late_s(self) -> Seconds:
        return Seconds(min(LATE_S_MAX, max(LATE_S_MIN, LATE_TIMES * self._usual_s)))

    def answered(self, tokens: Tokens, seconds: float) -> None:
        """The answer came ``seconds`` after its portion was sent."""
        self._usual_s += SMOOTHING * (seconds - self._usual_s)
        self._budget = min(self._budget_max, self._budget + EXTRA_SHARE * tokens)

    def may_send_again(self, tokens: Tokens) -> bool:
        """Take the tokens from the budget, if it has as many."""
        if self._budget < tokens:
            return False
        self._budget -= tokens
        return True
