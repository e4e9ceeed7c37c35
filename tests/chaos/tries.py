"""Requests under a limit per minute, and a check that the limit held.

The exact time of admission is unknown: it is between the times before and after the request.
"""

from collections.abc import Sequence
from dataclasses import dataclass

WINDOW_S = 61
"""Time for which a limit counts a request: 60 s, in whole seconds."""

EXCESS_MAX = SHORTFALL_MAX = 0.02
"""Tolerance, as a share of the limit: for admissions within 60 s, and for the unused rest at a
rejection."""


@dataclass(frozen=True, slots=True)
class Try:
    """One request under a limit."""

    before_s: float
    after_s: float
    amount: int
    """The limited amount: 1 for a request, or its number of documents."""

    remaining: int | None
    """The rest of the limit according to the answer; ``None``: the request was rejected."""


def check_limit(tries: Sequence[Try], limit: int) -> None:
    """Assert that no 60 s exceed ``limit``, no request was rejected needlessly, and all answers
    state the correct rest."""
    served = [each for each in tries if each.remaining is not None]
    refused = [each for each in tries if each.remaining is None]
    assert refused, "no request was rejected"
    assert sum(each.amount for each in served) > limit, "the limit did not refill after a minute"
    _check_every_minute(served, limit)
    _check_refusals(served, refused, limit)
    _check_remaining(served, limit)


def _check_every_minute(served: Sequence[Try], limit: int) -> None:
    for first in served:
        end_s = first.before_s + 60
        # Only requests that were certainly admitted within these 60 s.
        inside = (
            each for each in served if first.before_s <= each.before_s and each.after_s < end_s
        )
        amount = sum(each.amount for each in inside)
        assert amount <= (1 + EXCESS_MAX) * limit, f"{amount} in a minute, of {limit}"


def _check_refusals(served: Sequence[Try], refused: Sequence[Try], limit: int) -> None:
    for refusal in refused:
        since_s = refusal.before_s - WINDOW_S
        counted = sum(
            each.amount
            for each in served
            if since_s < each.after_s and each.before_s < refusal.after_s
        )
        assert counted + refusal.amount > (1 - SHORTFALL_MAX) * limit


def _check_remaining(served: Sequence[Try], limit: int) -> None:
    """Assert that in the first minute, each admission lowers the rest by exactly its amount."""
    start_s = min(each.before_s for each in served)
    left = limit
    first_minute = [each for each in served if each.after_s < start_s + 60]
    for each in sorted(first_minute, key=lambda each: each.remaining or 0, reverse=True):
        left -= each.amount
        assert each.remaining == left
