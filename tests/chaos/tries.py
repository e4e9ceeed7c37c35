"""Requests under a limit per minute, and whether the limit held. No clock is trusted too far: a
request was let in somewhere between its two times."""

from collections.abc import Sequence
from dataclasses import dataclass

WINDOW_S = 61
"""How long a limit remembers: any 60 s, in whole seconds."""

EXCESS_MAX = SHORTFALL_MAX = 0.02
"""Of the limit: passed in some 60 s, or left when a request is refused."""


@dataclass(frozen=True, slots=True)
class Try:
    """One request under a limit."""

    before_s: float
    after_s: float
    amount: int
    """Of what is limited: 1 request, or its documents."""

    remaining: int | None
    """What its answer said is left; ``None``: it was refused."""


def check_limit(tries: Sequence[Try], limit: int) -> None:
    """No 60 s hold more than ``limit``, nobody was refused without need, and what the answers
    said was left is what was left."""
    served = [each for each in tries if each.remaining is not None]
    refused = [each for each in tries if each.remaining is None]
    assert refused, "nobody asked for too much"
    assert sum(each.amount for each in served) > limit, "nothing came back after a minute"
    _check_every_minute(served, limit)
    _check_refusals(served, refused, limit)
    _check_remaining(served, limit)


def _check_every_minute(served: Sequence[Try], limit: int) -> None:
    for first in served:
        end_s = first.before_s + 60
        # Only what was certainly let in within these 60 s.
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
    """In the first minute no two requests were let in on the same count, which ran down evenly."""
    start_s = min(each.before_s for each in served)
    left = limit
    first_minute = [each for each in served if each.after_s < start_s + 60]
    for each in sorted(first_minute, key=lambda each: each.remaining or 0, reverse=True):
        left -= each.amount
        assert each.remaining == left
