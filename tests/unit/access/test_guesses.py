"""The delay of wrong secrets grows up to a limit, and resets after a quiet minute."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serve_app.access.guesses import (
    DELAY_S_MAX,
    DELAY_S_MIN,
    FORGOTTEN_AFTER_S,
    FREE_GUESSES,
    Guesses,
    delay_of,
    one_more,
)
from serve_app.domain.units import Instant

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def test_a_few_mistakes_cost_no_time() -> None:
    assert [delay_of(count) for count in range(1, FREE_GUESSES + 1)] == [0.0] * FREE_GUESSES
    assert delay_of(FREE_GUESSES + 1) == DELAY_S_MIN


@unhurried
@given(count=st.integers(1, 10**9))
def test_the_delay_never_shrinks_and_never_passes_its_limit(count: int) -> None:
    assert delay_of(count) <= delay_of(count + 1) <= DELAY_S_MAX


def test_the_delay_reaches_its_limit() -> None:
    assert delay_of(20) == DELAY_S_MAX


@pytest.mark.parametrize(
    ("quiet_s", "count"),
    [(0, 8), (FORGOTTEN_AFTER_S - 1, 8), (FORGOTTEN_AFTER_S, 1), (-1, 8)],
)
def test_guesses_are_forgotten_after_a_quiet_minute(quiet_s: float, count: int) -> None:
    known = Guesses(7, Instant(1_000))

    again = one_more(known, Instant(1_000 + quiet_s))

    assert again == Guesses(count, Instant(1_000 + quiet_s))
