"""Delay the refusal of wrong secrets, longer each time, to slow down guessing. Pure.

A correct secret is never counted or delayed, so no attacker can lock out the owner of a key.
"""

from dataclasses import dataclass

from serve_app.domain.units import Instant, Seconds

FREE_GUESSES = 3
"""Wrong secrets without a delay, for a user who pastes the wrong key."""

DELAY_S_MIN = Seconds(0.1)
DELAY_S_MAX = Seconds(5.0)
FORGOTTEN_AFTER_S = Seconds(60.0)


@dataclass(frozen=True, slots=True)
class Guesses:
    """Recent wrong secrets for one key id."""

    count: int
    last_at: Instant


def one_more(known: Guesses | None, now: Instant) -> Guesses:
    """Count another wrong secret. Counts from before a quiet minute are discarded."""
    if known is None or now - known.last_at >= FORGOTTEN_AFTER_S:
        return Guesses(1, now)
    return Guesses(known.count + 1, now)


def delay_of(count: int) -> Seconds:
    """Return the delay for the ``count``-th wrong secret. It doubles up to `DELAY_S_MAX`."""
    doublings = count - FREE_GUESSES - 1
    if doublings < 0:
        return Seconds(0.0)
    # Limit the exponent too: a count of thousands would give a huge number.
    return Seconds(min(DELAY_S_MAX, DELAY_S_MIN * 2 ** min(doublings, 16)))
