"""Sliding-window rate limits per minute.

A window counts per whole second and drops a second once all of it is 60 s old. So no interval of
60 s exceeds the limit, and evenly spaced requests get at least 60/61 of it.

A window may be ahead of a request, because clocks differ and jump, and because a request that waits
for the lock keeps its arrival time. If it is up to `AHEAD_S_MAX` ahead, the request counts in its
newest second. Otherwise its future counts move to the present, so that a fast clock does not delay
callers for much more than a minute.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from serve_app.domain.errors import RateLimited, TooLarge
from serve_app.domain.model import RateLimits, RateLimitState
from serve_app.domain.units import Moment, Seconds

WINDOW_S = 60
AHEAD_S_MAX = 10
"""A window further ahead was written by a wrong clock."""

REQUESTS, DOCUMENTS = "requests", "documents"


@dataclass(frozen=True, slots=True)
class Count:
    """Requests and documents admitted in one second, numbered since 1970."""

    second: int
    requests: int
    documents: int


Window = tuple[Count, ...]
"""Oldest first, with at most one `Count` per second."""


def live(window: Window, now: Moment) -> Window:
    second, wrong = now // 1_000, is_ahead(window, now)
    kept: list[Count] = []
    for count in window:
        dated = min(count.second, second) if wrong else count.second
        if dated + WINDOW_S < second:
            continue
        if kept and kept[-1].second == dated:
            last = kept.pop()
            count = _sum(last, count)  # noqa: PLW2901 - merges counts of one second
        kept.append(Count(dated, count.requests, count.documents))
    return tuple(kept)


def admit(
    window: Window, limits: RateLimits, documents: int, now: Moment, whose: str
) -> tuple[Window, tuple[RateLimitState, ...]]:
    """Return the window and the limit states with one more request.

    Raises: RateLimited with the time until all limits admit the request; TooLarge if it has more
    documents than the limit.
    """
    current = live(window, now)
    documents_max = limits.documents_per_minute_max
    if documents_max is not None and documents > documents_max:
        raise TooLarge(DOCUMENTS, documents_max, f"documents per minute for this {whose}")
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
    reset_s = Seconds(0.0)
    if window:
        reset_s = Seconds((window[-1].second + WINDOW_S + 1) - now / 1_000)
    return tuple(
        RateLimitState(what, limit, max(0, limit - sum(_amounts(window, what))), reset_s)
        for what, limit, _ in _limited(limits, 0)
    )


def is_ahead(window: Window, now: Moment) -> bool:
    """If true, the corrected window must be stored: otherwise every read would move it again."""
    return bool(window) and window[-1].second > now // 1_000 + AHEAD_S_MAX


def tightest(*of_each: Sequence[RateLimitState]) -> tuple[RateLimitState, ...]:
    """Return the state with the least remaining for each kind of limit."""
    chosen: dict[str, RateLimitState] = {}
    for state in (state for states in of_each for state in states):
        known = chosen.get(state.what)
        if known is None or state.remaining < known.remaining:
            chosen[state.what] = state
    return tuple(chosen.values())


def encode(window: Window) -> list[list[int]]:
    return [[count.second, count.requests, count.documents] for count in window]


def decode(stored: Sequence[Sequence[int]]) -> Window:
    return tuple(Count(*count) for count in stored)


def _limited(limits: RateLimits, documents: int) -> list[tuple[str, int, int]]:
    """Return (what, limit, amount of this request) for each limit that is set."""
    both = (
        (REQUESTS, limits.requests_per_minute_max, 1),
        (DOCUMENTS, limits.documents_per_minute_max, documents),
    )
    return [(what, limit, wanted) for what, limit, wanted in both if limit is not None]


def _amounts(window: Window, what: str) -> list[int]:
    return [count.requests if what == REQUESTS else count.documents for count in window]


def _wait_s(window: Window, what: str, excess: int, now: Moment) -> int:
    """Return whole seconds, 1 to 61, until ``excess`` has left the window."""
    for count, amount in zip(window, _amounts(window, what), strict=True):
        excess -= amount
        if excess <= 0:
            return max(1, math.ceil(count.second + WINDOW_S + 1 - now / 1_000))
    return WINDOW_S + 1


def _sum(one: Count, other: Count) -> Count:
    return Count(one.second, one.requests + other.requests, one.documents + other.documents)
