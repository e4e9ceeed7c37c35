"""How those who guess secrets are slowed: the answer to a wrong one comes later each time. Pure.

A right secret is never counted and never waits, so nobody can lock a key's owner out.
"""

from dataclasses import dataclass

from serve_app.domain.units import Instant, Seconds

FREE_GUESSES = 3
"""A person who pastes the wrong key notices no delay."""

DELAY_S_MIN = Seconds(0.1)
DELAY_S_MAX = Seconds(5.0)
FORGOTTEN_AFTER_S = Seconds(60.0)


@dataclass(frozen=True, slots=True)
class Guesses:
    """Wrong secrets for one key id, lately."""

    count: int
    last_at: Instant


def one_more(known: Guesses | None, now: Instant) -> Guesses:
    """After another wrong secret; those before a quiet minute are forgotten."""
    if known is None or now - known.last_at >= FORGOTTEN_AFTER_S:
        return Guesses(1, now)
    return Guesses(known.count + 1, now)


def delay_of(count: int) -> Seconds:
    """How long the answer to the ``count``-th wrong secret waits: it doubles, up to a limit."""
    doublings = count - FREE_GUESSES - 1
    if doublings < 0:
        return Seconds(0.0)
    # The exponent is bounded too: a count of thousands must not become a huge number.
    return Seconds(min(DELAY_S_MAX, DELAY_S_MIN * 2 ** min(doublings, 16)))
