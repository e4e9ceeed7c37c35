"""The gate admits whole requests, limits their total, and computes when to retry."""

from contextlib import ExitStack
from dataclasses import replace

import pytest

from serve_app.admission.durations import REQUESTS, TENANTS_MAX, RecentDurations
from serve_app.admission.estimate import SMALL_TOKENS_MAX, estimate_tokens, is_small
from serve_app.admission.gate import TENANTS_AT_LEAST, Gate, SharedGate
from serve_app.admission.places import Places
from serve_app.admission.refusals import (
    BODY_BYTES_PER_REFUSAL,
    REFUSALS_MAX,
    REFUSALS_PER_S,
    RefusalBudget,
)
from serve_app.domain.errors import (
    RETRY_AFTER_S_MAX,
    ConcurrencyLimited,
    Overloaded,
    TooManyRefusals,
)
from serve_app.domain.job import TextPair
from serve_app.domain.model import Caller, Overflow
from serve_app.domain.units import KeyId, Seconds, TenantId, Tokens
from tests.support.fakes import FakeClock, a_job

PAIR_TOKENS_MAX = 512
ACME, OTHER = TenantId("acme"), TenantId("other")


def test_an_estimate_grows_with_the_text_and_is_bounded_by_the_model() -> None:
    short = a_job(documents=("word",))
    long = a_job(documents=("word " * 10_000,))

    assert 1 <= estimate_tokens(short, PAIR_TOKENS_MAX) < 20
    assert estimate_tokens(long, PAIR_TOKENS_MAX) == PAIR_TOKENS_MAX


def test_text_that_is_not_ascii_has_more_tokens_per_character() -> None:
    chinese = a_job(documents=("\N{CJK UNIFIED IDEOGRAPH-4E2D}" * 100,))
    accents = a_job(documents=("d\N{LATIN SMALL LETTER E WITH ACUTE}j vu " * 10,))

    assert 100 <= estimate_tokens(chinese, PAIR_TOKENS_MAX) <= 110
    assert 20 <= estimate_tokens(accents, PAIR_TOKENS_MAX) <= 40


class WatchedText(str):
    """A string that counts its encodings."""

    encoded = 0

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        self.encoded += 1
        return super().encode(encoding, errors)


def test_a_query_is_estimated_once_however_many_documents_there_are() -> None:
    query = WatchedText("\N{CJK UNIFIED IDEOGRAPH-4E2D}" * 100)

    tokens = estimate_tokens(a_job(query=query, documents=("word",) * 50), PAIR_TOKENS_MAX)

    assert query.encoded == 1
    assert tokens == 50 * estimate_tokens(a_job(query=query, documents=("word",)), PAIR_TOKENS_MAX)


def test_each_pair_is_estimated_with_its_own_query() -> None:
    apart = [a_job(query=query, documents=("a word",)) for query in ("short", "long " * 50)]
    together = replace(apart[0], pairs=apart[0].pairs + apart[1].pairs)

    assert estimate_tokens(together, PAIR_TOKENS_MAX) == sum(
        estimate_tokens(each, PAIR_TOKENS_MAX) for each in apart
    )


def test_each_window_is_estimated_with_its_query() -> None:
    whole = a_job(documents=("word " * 4_000, "short"))
    divided = replace(whole, overflow=Overflow.CHUNK, windows_max=1_000)

    tokens = estimate_tokens(divided, PAIR_TOKENS_MAX)

    assert estimate_tokens(whole, PAIR_TOKENS_MAX) < 2 * PAIR_TOKENS_MAX
    assert 4_000 * 5 / 4 * 4 / 3 < tokens < 4_000 * 5 / 4 * 3 / 2
    few = replace(divided, windows_max=3)
    assert estimate_tokens(few, PAIR_TOKENS_MAX) == 3 * PAIR_TOKENS_MAX


def test_many_queries_make_a_job_large() -> None:
    pairs = tuple(TextPair("x" * 1_000 + str(number), "a") for number in range(201))

    assert is_small(replace(a_job(), pairs=pairs[:100]), Tokens(1))
    assert not is_small(replace(a_job(), pairs=pairs), Tokens(1))


def test_a_job_is_small_only_if_its_texts_are_short() -> None:
    """Tokenizing 10 MB of white space takes seconds and yields no token."""
    blank = a_job(documents=(" " * 10_000_000,))

    assert is_small(a_job(), Tokens(SMALL_TOKENS_MAX))
    assert not is_small(a_job(), Tokens(SMALL_TOKENS_MAX + 1))
    assert not is_small(blank, estimate_tokens(blank, PAIR_TOKENS_MAX))


def test_a_request_that_does_not_fit_is_refused_as_a_whole() -> None:
    full = Gate(100)

    with full.admit(60), pytest.raises(Overloaded) as refused, full.admit(41):
        raise AssertionError("admitted beyond the limit")

    assert full.amount == 0
    assert 1 <= refused.value.retry_after_s <= 60


def test_an_empty_gate_admits_a_request_larger_than_its_limit() -> None:
    tiny = Gate(1)

    with tiny.admit(100):
        assert tiny.amount == 100


def test_room_is_released_when_the_block_fails() -> None:
    small = Gate(100)

    with pytest.raises(ZeroDivisionError), small.admit(50):
        raise ZeroDivisionError

    assert small.amount == 0


def test_a_tenant_that_fills_its_share_does_not_block_others() -> None:
    shared = SharedGate(1_000)

    with ExitStack() as held:
        for _ in range(25):
            held.enter_context(shared.admit(ACME, 10))
        with pytest.raises(Overloaded), shared.admit(ACME, 10):
            pass

        with shared.admit(OTHER, 250):
            pass


def test_a_full_shared_gate_refuses_every_tenant() -> None:
    shared = SharedGate(1_000)

    with ExitStack() as held:
        for number in range(TENANTS_AT_LEAST):
            held.enter_context(shared.admit(TenantId(f"t{number}"), 250))
        with pytest.raises(Overloaded), shared.admit(OTHER, 1):
            pass

    with shared.admit(OTHER, 1):
        pass


def test_a_tenant_alone_may_hold_more_than_its_share_by_one_request() -> None:
    with SharedGate(1_000).admit(ACME, 900):
        pass


def test_an_amount_that_is_not_needed_is_released_at_once() -> None:
    shared = SharedGate(1_000)

    with shared.admit(ACME, 900) as hold_only:
        hold_only(50)
        with shared.admit(ACME, 200), shared.admit(OTHER, 250):
            pass
        with pytest.raises(Overloaded), shared.admit(ACME, 201):
            pass

    with shared.admit(ACME, 1_000):  # The gate is empty again.
        pass


def test_a_request_that_holds_nothing_gives_no_second_share() -> None:
    shared = SharedGate(1_000)

    with shared.admit(ACME, 100) as hold_only:
        hold_only(0)  # An empty body.
        with shared.admit(ACME, 10):
            pass
        with shared.admit(ACME, 250):
            pass
        with shared.admit(ACME, 250), pytest.raises(Overloaded), shared.admit(ACME, 1):
            pass


def caller(tenant: str, key: str) -> Caller:
    return Caller(TenantId(tenant), KeyId(key), frozenset({"rerank"}), None)


def taken(places: Places, *callers: Caller) -> int:
    """Return how many callers get a place while earlier callers keep theirs."""
    count = 0
    with ExitStack() as stack:
        for each in callers:
            try:
                stack.enter_context(places.take(each))
            except (ConcurrencyLimited, Overloaded):
                continue
            count += 1
    return count


def test_a_key_holds_an_eighth_of_the_places_and_a_tenant_a_quarter() -> None:
    places = Places(FakeClock(), 64)
    keys = [caller("acme", f"key{index}") for index in range(4)]

    assert taken(places, *[keys[0]] * 64) == 8
    assert taken(places, *keys * 64) == 16
    assert taken(places, *(caller(f"tenant{index}", "k") for index in range(100))) == 8
    assert taken(places, *(caller(f"tenant{i}", f"key{i}") for i in range(100))) == 64


def test_a_refused_caller_learns_whose_places_are_taken() -> None:
    places = Places(FakeClock(), 16)
    one, two, three = (caller("acme", f"key{index}") for index in range(3))

    with ExitStack() as stack:
        for each in (one, one):
            stack.enter_context(places.take(each))
        with pytest.raises(ConcurrencyLimited, match="key"):
            stack.enter_context(places.take(one))
        for each in (two, two):
            stack.enter_context(places.take(each))
        with pytest.raises(ConcurrencyLimited, match="tenant"):
            stack.enter_context(places.take(three))
        stack.enter_context(places.take(caller("other", "key9")))


def test_places_are_released_when_requests_fail() -> None:
    places = Places(FakeClock(), 8)
    for _ in range(10):
        with pytest.raises(ZeroDivisionError), places.take(caller("acme", "key")):
            raise ZeroDivisionError


def test_the_wait_at_a_limit_is_the_usual_duration_divided_by_the_limit() -> None:
    clock = FakeClock()
    places = Places(clock, 16)
    one = caller("acme", "key")

    def refusal(limit: int) -> int:
        with pytest.raises(ConcurrencyLimited) as refused, places.take(one):
            raise ConcurrencyLimited("key", limit)
        return refused.value.retry_after_s

    assert refusal(2) == 1, "no request was answered yet"
    for duration_s in (30, 4, 18):
        with places.take(one):
            clock.advance(duration_s)
    assert [refusal(limit) for limit in (0, 1, 2, 5, 100)] == [18, 18, 9, 4, 1]
    with places.take(one), places.take(one), pytest.raises(ConcurrencyLimited) as refused:
        places.take(one).__enter__()
    assert refused.value.retry_after_s == 9
    with pytest.raises(ConcurrencyLimited) as other, places.take(caller("other", "k2")):
        raise ConcurrencyLimited("key", 1)
    assert other.value.retry_after_s == 1


def test_the_wait_at_a_limit_follows_the_last_answers_and_is_bounded() -> None:
    clock = FakeClock()
    places = Places(clock)
    one = caller("acme", "key")
    for duration_s in [1] * REQUESTS + [500] * REQUESTS:
        with places.take(one):
            clock.advance(duration_s)

    with pytest.raises(ConcurrencyLimited) as refused, places.take(one):
        raise ConcurrencyLimited("tenant", 1)

    assert refused.value.retry_after_s == RETRY_AFTER_S_MAX


def test_durations_of_a_limited_number_of_tenants_are_kept() -> None:
    durations = RecentDurations()
    for index in range(TENANTS_MAX + 1):
        durations.add(TenantId(f"tenant{index}"), Seconds(7))
        durations.add(TenantId("busy"), Seconds(9))

    assert durations.typical_s(TenantId("tenant0")) == Seconds(0)
    assert durations.typical_s(TenantId(f"tenant{TENANTS_MAX}")) == Seconds(7)
    assert durations.typical_s(TenantId("busy")) == Seconds(9)


def test_a_tenant_without_budget_is_refused_until_it_recovers() -> None:
    clock = FakeClock()
    budget = RefusalBudget(clock)

    for _ in range(REFUSALS_MAX):
        budget.check(ACME)
        budget.refused(ACME, 0)

    with pytest.raises(TooManyRefusals) as refused:
        budget.check(ACME)
    budget.check(OTHER)
    assert refused.value.retry_after_s == 1
    clock.advance(1 / REFUSALS_PER_S)
    budget.check(ACME)
    clock.advance(3_600)
    for _ in range(REFUSALS_MAX):
        budget.refused(ACME, 0)
    with pytest.raises(TooManyRefusals):
        budget.check(ACME)


def test_a_large_body_costs_as_much_as_many_small_ones() -> None:
    budget = RefusalBudget(FakeClock())

    budget.refused(ACME, REFUSALS_MAX * BODY_BYTES_PER_REFUSAL)

    with pytest.raises(TooManyRefusals):
        budget.check(ACME)


def test_a_tenant_recovers_within_seconds_after_any_number_of_refusals() -> None:
    clock = FakeClock()
    budget = RefusalBudget(clock)
    for _ in range(1_000):
        budget.refused(ACME, 10_000_000)

    with pytest.raises(TooManyRefusals) as refused:
        budget.check(ACME)

    assert refused.value.retry_after_s <= 11
    clock.advance(refused.value.retry_after_s)
    budget.check(ACME)


def test_a_tenant_at_its_limit_still_gets_the_whole_limit() -> None:
    """For an hour, half of the requests are answered, and the refusal budget refuses none."""
    clock = FakeClock()
    budget = RefusalBudget(clock)

    for _ in range(100 * 3_600):
        budget.check(ACME)
        budget.refused(ACME, 50_000)
        budget.check(ACME)
        budget.answered(ACME, 50_000)
        clock.advance(0.01)
