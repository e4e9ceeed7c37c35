"""How much was asked for in the last minute, and whether more may be. Pure: time is an argument.

A window counts per whole second and forgets a second when all of it is 60 s ago: so no 60 seconds
ever hold more than the limit, and a caller who asks evenly gets at least 60/61 of it. Windows live
in the database, under the lock of their tenant, since every gateway counts in them.

Clocks differ and jump, and a request that waited for its turn is told the time at which it came. A
window that is a little ahead is taken at its word: what is let in counts in its newest second.
Beyond that, what it holds of the future counts as of now, so that a clock that was once far ahead
delays nobody for much more than a minute.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from serve_app.domain.errors import RateLimited, TooLarge
from serve_app.domain.model import RateLimits, RateLimitState
from serve_app.domain.units import Moment, Seconds

WINDOW_S = 60
AHEAD_S_MAX = 10
"""A window further ahead than this was written by a clock that was wrong."""

REQUESTS, DOCUMENTS = "requests", "documents"


@dataclass(frozen=True, slots=True)
class Count:
    """What was let in during one second since 1970."""

    second: int
    requests: int
    documents: int


Window = tuple[Count, ...]
"""Oldest first; at most one `Count` a second."""


def live(window: Window, now: Moment) -> Window:
    """What of ``window`` still counts."""
    second, wrong = now // 1_000, is_ahead(window, now)
    kept: list[Count] = []
    for count in window:
        dated = min(count.second, second) if wrong else count.second
        if dated + WINDOW_S < second:
            continue
        if kept and kept[-1].second == dated:
            last = kept.pop()
            count = _sum(last, count)  # noqa: PLW2901 - the same second, told twice
        kept.append(Count(dated, count.requests, count.documents))
    return tuple(kept)


def admit(
    window: Window, limits: RateLimits, documents: int, now: Moment, whose: str
) -> tuple[Window, tuple[RateLimitState, ...]]:
    """The window with one more request in it, and where that leaves the caller.

    Args:
        window: As it was stored, of whatever age.
        documents: Of the request.
        whose: ``key`` or ``tenant``, for messages.

    Raises:
        RateLimited: Not now; it says when all of these limits will let it in.
        TooLarge: Not ever: the request alone has more documents than a minute allows.
    """
    current = live(window, now)
    documents_max = limits.documents_per_minute_max
    if documents_max is not None and documents > documents_max:
        raise TooLarge(DOCUMENTS, documents_max, f"documents a minute of this {whose}")
    refusals = [
        (_wait_s(current, what, excess, now), what)
        for what, limit, wanted in _limited(limits, documents)
        if (excess := sum(_amounts(current, what)) + wanted - limit) > 0
    ]
    if refusals:
        wait_s, what = max(refusals)
        raise RateLimited(whose, what, wait_s, states(current, limits, now))
    second = now // 1_000
    if current:
        second = max(second, current[-1].second)
    if current and current[-1].second == second:
        admitted = (*current[:-1], _sum(current[-1], Count(second, 1, documents)))
    else:
        admitted = (*current, Count(second, 1, documents))
    return admitted, states(admitted, limits, now)


def states(window: Window, limits: RateLimits, now: Moment) -> tuple[RateLimitState, ...]:
    """Where a caller with these limits stands."""
    reset_s = Seconds(0.0)
    if window:
        reset_s = Seconds((window[-1].second + WINDOW_S + 1) - now / 1_000)
    return tuple(
        RateLimitState(what, limit, max(0, limit - sum(_amounts(window, what))), reset_s)
        for what, limit, _ in _limited(limits, 0)
    )


def is_ahead(window: Window, now: Moment) -> bool:
    """Whether it is so far ahead that its future counts as of now: then that must be stored, or it
    would be as of now again at the next look."""
    return bool(window) and window[-1].second > now // 1_000 + AHEAD_S_MAX


def tightest(*of_each: Sequence[RateLimitState]) -> tuple[RateLimitState, ...]:
    """Of each kind the state that leaves least: a key's beside its tenant's."""
    chosen: dict[str, RateLimitState] = {}
    for state in (state for states in of_each for state in states):
        known = chosen.get(state.what)
        if known is None or state.remaining < known.remaining:
            chosen[state.what] = state
    return tuple(chosen.values())


def encode(window: Window) -> list[list[int]]:
    """For a JSON column."""
    return [[count.second, count.requests, count.documents] for count in window]


def decode(stored: Sequence[Sequence[int]]) -> Window:
    """What `encode` made."""
    return tuple(Count(*count) for count in stored)


def _limited(limits: RateLimits, documents: int) -> list[tuple[str, int, int]]:
    """(what, limit, how much of it a request takes), where there is a limit."""
    both = (
        (REQUESTS, limits.requests_per_minute_max, 1),
        (DOCUMENTS, limits.documents_per_minute_max, documents),
    )
    return [(what, limit, wanted) for what, limit, wanted in both if limit is not None]


def _amounts(window: Window, what: str) -> list[int]:
    return [count.requests if what == REQUESTS else count.documents for count in window]


def _wait_s(window: Window, what: str, excess: int, now: Moment) -> int:
    """Whole seconds until ``excess`` is forgotten, from 1 to 61: a ``Retry-After`` stops at 60."""
    for count, amount in zip(window, _amounts(window, what), strict=True):
        excess -= amount
        if excess <= 0:
            return max(1, math.ceil(count.second + WINDOW_S + 1 - now / 1_000))
    return WINDOW_S + 1


def _sum(one: Count, other: Count) -> Count:
    return Count(one.second, one.requests + other.requests, one.documents + other.documents)
