"""No minute exceeds its limit, and the retry time of a refusal is correct."""

import math
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from serve_app.domain.errors import RETRY_AFTER_S_MAX, RateLimited, TooLarge
from serve_app.domain.model import RateLimits, RateLimitState
from serve_app.domain.units import Moment, Seconds
from serve_app.ledger.money.rate_window import (
    AHEAD_S_MAX,
    WINDOW_S,
    Count,
    Window,
    admit,
    decode,
    encode,
    is_ahead,
    live,
    states,
    tightest,
)

START = 1_700_000_000_000
LIMITS = RateLimits(requests_per_minute_max=3, documents_per_minute_max=20)
ONE_A_MINUTE = RateLimits(requests_per_minute_max=1)
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

limits = st.builds(
    RateLimits,
    requests_per_minute_max=st.none() | st.integers(1, 8),
    documents_per_minute_max=st.none() | st.integers(1, 40),
)
forward = st.lists(st.tuples(st.integers(0, 70_000), st.integers(1, 15)), max_size=40)
anyhow = st.lists(st.tuples(st.integers(-10_000_000, 10_000_000), st.integers(1, 15)), max_size=20)


@dataclass
class Caller:
    """A caller that records its admitted requests and stores its window like the database."""

    limits: RateLimits
    now: int = START
    stored: list[list[int]] = field(default_factory=list)
    let_in: list[tuple[int, int]] = field(default_factory=list)

    @property
    def window(self) -> Window:
        return decode(self.stored)

    def ask(self, documents: int) -> tuple[RateLimitState, ...]:
        now = Moment(self.now)
        if is_ahead(self.window, now):
            self.stored = encode(live(self.window, now))
        window, states = admit(self.window, self.limits, documents, now, "key")
        self.stored = encode(window)
        self.let_in.append((self.now, documents))
        return states

    def in_last_minute(self) -> tuple[int, int]:
        """Return the requests and documents of the last 60 s."""
        recent = [each for at, each in self.let_in if at > self.now - WINDOW_S * 1_000]
        return len(recent), sum(recent)


@unhurried
@given(limits=limits, asked=forward)
def test_no_sixty_seconds_contain_more_than_the_limit(
    limits: RateLimits, asked: list[tuple[int, int]]
) -> None:
    caller = Caller(limits)
    for gap_ms, documents in asked:
        caller.now += gap_ms
        try:
            caller.ask(documents)
        except (RateLimited, TooLarge):
            continue
        requests_now, documents_now = caller.in_last_minute()
        assert requests_now <= (limits.requests_per_minute_max or math.inf)
        assert documents_now <= (limits.documents_per_minute_max or math.inf)


@unhurried
@given(limits=limits, asked=forward)
def test_a_refused_request_is_admitted_at_its_retry_time_but_not_before(
    limits: RateLimits, asked: list[tuple[int, int]]
) -> None:
    caller = Caller(limits)
    for gap_ms, documents in asked:
        caller.now += gap_ms
        try:
            caller.ask(documents)
        except TooLarge:
            continue
        except RateLimited as refusal:
            wait_s = refusal.retry_after_s
            if wait_s == RETRY_AFTER_S_MAX:  # The whole wait may be one second longer.
                caller.now += (WINDOW_S + 1) * 1_000
                caller.ask(documents)
                continue
            caller.now += (wait_s - 1) * 1_000
            if wait_s > 1:
                caller.now -= 1
                with pytest.raises(RateLimited):
                    caller.ask(documents)
                caller.now += 1
            caller.now += 1_000
            caller.ask(documents)


@unhurried
@example(limits=ONE_A_MINUTE, asked=[(3_600_000, 1), (-3_600_000, 1)])
@given(limits=limits, asked=anyhow)
def test_clock_jumps_refuse_requests_for_little_more_than_a_minute(
    limits: RateLimits, asked: list[tuple[int, int]]
) -> None:
    """After the clock jumps, the caller makes a request every second."""
    caller = Caller(limits)
    for jump_ms, documents in asked:
        caller.now += jump_ms
        try:
            caller.ask(documents)
        except (RateLimited, TooLarge):
            continue
    refused_s = 0
    while True:
        try:
            caller.ask(1)
        except RateLimited:
            refused_s += 1
            caller.now += 1_000
        else:
            break

    assert refused_s <= WINDOW_S + AHEAD_S_MAX + 1


def test_a_delayed_request_does_not_move_the_window_back() -> None:
    """A refused request must not do so either, or later counts would be dropped too early."""
    caller = Caller(ONE_A_MINUTE, now=START + 3_900)
    caller.ask(1)

    caller.now = START + 200
    with pytest.raises(RateLimited):
        caller.ask(1)

    caller.now = START + 3_900 + WINDOW_S * 1_000
    with pytest.raises(RateLimited):
        caller.ask(1)


def test_a_delayed_request_counts_in_the_newest_second() -> None:
    caller = Caller(LIMITS, now=START + 3_900)
    caller.ask(1)
    caller.now = START + 200
    caller.ask(1)

    assert caller.window == (Count((START + 3_900) // 1_000, 2, 2),)


@unhurried
@given(limit=st.integers(1, 100))
def test_evenly_spaced_requests_get_60_of_61_parts_of_the_limit(limit: int) -> None:
    caller = Caller(RateLimits(requests_per_minute_max=limit))
    for _ in range(3 * limit):
        caller.ask(1)
        caller.now += math.ceil((WINDOW_S + 1) * 1_000 / limit)


@unhurried
@given(limits=limits, asked=forward)
def test_the_returned_limit_states_are_correct(
    limits: RateLimits, asked: list[tuple[int, int]]
) -> None:
    caller = Caller(limits)
    waits_s = []
    for gap_ms, documents in asked:
        caller.now += gap_ms
        try:
            states = caller.ask(documents)
        except TooLarge:
            continue
        except RateLimited as refusal:
            states = refusal.states
            waits_s.append(refusal.retry_after_s)
        for state in states:
            assert 0 <= state.remaining <= state.limit
            check_state(caller, state)
    assert all(1 <= wait_s <= RETRY_AFTER_S_MAX for wait_s in waits_s)


def check_state(caller: Caller, state: RateLimitState) -> None:
    """Check that exactly ``remaining`` more fit, and that the full limit fits after the reset."""
    if state.what == "requests":
        alone = RateLimits(requests_per_minute_max=state.limit)
    else:
        alone = RateLimits(documents_per_minute_max=state.limit)
    later = Moment(caller.now + math.ceil(state.reset_s * 1_000))
    for now, room in ((Moment(caller.now), state.remaining), (later, state.limit)):
        window = caller.window
        if state.what == "requests":
            for _ in range(room):
                window, _ = admit(window, alone, 1, now, "key")
        elif room:
            window, _ = admit(window, alone, room, now, "key")
        with pytest.raises(RateLimited):
            admit(window, alone, 1, now, "key")


def test_the_longest_wait_of_all_limits_is_returned() -> None:
    caller = Caller(LIMITS)
    caller.ask(1)
    caller.now += 10_000
    caller.ask(18)
    caller.ask(1)

    with pytest.raises(RateLimited) as refusal:
        caller.ask(15)  # The wait is 51 s for requests, but 61 s for documents.

    assert (refusal.value.what, refusal.value.retry_after_s) == ("documents", RETRY_AFTER_S_MAX)


def test_retry_after_is_at_most_a_minute() -> None:
    """Requests of one second count for 61 s."""
    caller = Caller(RateLimits(requests_per_minute_max=2), now=START)
    caller.ask(1)
    caller.ask(1)

    with pytest.raises(RateLimited) as refusal:
        caller.ask(1)

    assert refusal.value.retry_after_s == RETRY_AFTER_S_MAX
    assert "Retry in 60 s." in refusal.value.public_message


def test_a_request_with_more_documents_than_the_limit_is_refused_permanently() -> None:
    with pytest.raises(TooLarge) as refusal:
        Caller(LIMITS).ask(21)

    assert refusal.value.limit == 20


def test_a_refused_request_does_not_count() -> None:
    caller = Caller(ONE_A_MINUTE)
    caller.ask(1)
    for _ in range(WINDOW_S):
        caller.now += 1_000
        with pytest.raises(RateLimited):
            caller.ask(1)

    caller.now += 1_000
    caller.ask(1)


def test_a_limit_of_zero_refuses_all_requests_with_retry_after() -> None:
    with pytest.raises(RateLimited) as refusal:
        Caller(RateLimits(requests_per_minute_max=0)).ask(1)

    assert 1 <= refusal.value.retry_after_s <= RETRY_AFTER_S_MAX


def test_after_a_limit_is_lowered_requests_wait_for_the_window_to_empty() -> None:
    caller = Caller(RateLimits(requests_per_minute_max=5))
    for _ in range(5):
        caller.ask(1)
        caller.now += 1_000
    caller.limits = RateLimits(requests_per_minute_max=2)

    with pytest.raises(RateLimited) as refusal:
        caller.ask(1)
    assert refusal.value.states[0].remaining == 0

    caller.now += refusal.value.retry_after_s * 1_000
    caller.ask(1)


@unhurried
@given(asked=anyhow)
def test_a_window_is_bounded_and_in_order(asked: list[tuple[int, int]]) -> None:
    caller = Caller(RateLimits(requests_per_minute_max=1_000))
    for jump_ms, documents in asked:
        caller.now += jump_ms // 1_000
        caller.ask(documents)
        seconds = [count.second for count in caller.window]
        assert seconds == sorted(set(seconds))
        assert len(seconds) <= WINDOW_S + 1


def test_a_window_is_read_as_it_was_stored() -> None:
    window = (Count(7, 1, 50), Count(9, 2, 3))

    assert decode(encode(window)) == window


def test_the_tighter_limit_of_each_kind_is_returned() -> None:
    loose = RateLimitState("requests", 10, 5, Seconds(3))
    tight = RateLimitState("requests", 100, 4, Seconds(60))
    other = RateLimitState("documents", 10, 10, Seconds(0))

    assert tightest([loose, other], [tight]) == (tight, other)
    assert tightest([tight], [loose, other]) == (tight, other)
    assert tightest([], []) == ()


def test_without_limits_there_are_no_states() -> None:
    assert states((), RateLimits(), Moment(START)) == ()
    assert states((), ONE_A_MINUTE, Moment(START)) == (
        RateLimitState("requests", 1, 1, Seconds(0)),
    )
