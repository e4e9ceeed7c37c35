"""The gate lets whole requests in, bounds what is inside, and computes when to come back."""

import pytest

from serve_app.admission import Gate, estimate_tokens
from serve_app.domain.errors import Overloaded
from serve_app.domain.units import Tokens
from tests.fakes import FakeClock, a_job

PAIR_TOKENS_MAX = 512


def gate(tokens_max: int, clock: FakeClock) -> Gate:
    return Gate(Tokens(tokens_max), PAIR_TOKENS_MAX, clock)


def test_an_estimate_grows_with_the_text_and_is_bounded_by_the_model() -> None:
    short = a_job(documents=("word",))
    long = a_job(documents=("word " * 10_000,))

    assert 1 <= estimate_tokens(short, PAIR_TOKENS_MAX) < 20
    assert estimate_tokens(long, PAIR_TOKENS_MAX) == PAIR_TOKENS_MAX


def test_a_request_that_does_not_fit_beside_the_others_is_refused_whole() -> None:
    tokens = estimate_tokens(a_job(), PAIR_TOKENS_MAX)
    full = gate(tokens, FakeClock())

    with full.admit(a_job()), pytest.raises(Overloaded), full.admit(a_job()):
        raise AssertionError("admitted beyond the limit")

    assert full.tokens == 0


def test_an_empty_gate_lets_in_even_what_is_larger_than_itself() -> None:
    tiny = gate(1, FakeClock())

    with tiny.admit(a_job()):
        assert tiny.tokens > 1


def test_room_comes_back_however_the_block_ends() -> None:
    small = gate(1_000, FakeClock())

    with pytest.raises(ZeroDivisionError), small.admit(a_job()):
        raise ZeroDivisionError

    assert small.tokens == 0


def test_retry_after_is_the_excess_over_the_speed_of_the_last_ten_seconds() -> None:
    clock = FakeClock()
    job = a_job(documents=("word " * 10_000,) * 10)
    tokens = estimate_tokens(job, PAIR_TOKENS_MAX)
    busy = gate(tokens, clock)
    for _ in range(5):
        with busy.admit(job):
            clock.advance(1)

    with busy.admit(job), pytest.raises(Overloaded) as refused, busy.admit(job):
        pass

    # 5 jobs left in ten seconds: room for another one is 2 seconds away.
    assert refused.value.retry_after_s == 2


def test_retry_after_is_never_zero_and_never_longer_than_a_minute() -> None:
    clock = FakeClock()
    stuck = gate(10, clock)
    with stuck.admit(a_job()):
        with pytest.raises(Overloaded) as unknown, stuck.admit(a_job()):
            pass
        assert unknown.value.retry_after_s == 10

    huge = a_job(documents=("word " * 10_000,) * 1_000)
    with stuck.admit(a_job()), pytest.raises(Overloaded) as refused, stuck.admit(huge):
        pass
    assert refused.value.retry_after_s == 60
