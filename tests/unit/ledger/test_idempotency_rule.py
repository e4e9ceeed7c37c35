"""The rule for requests with an idempotency key that was used before."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.domain.errors import IdempotencyKeyInUse, IdempotencyKeyReused
from serve_app.domain.units import Credits, KeyId, ModelId, Moment, RequestId, TenantId
from serve_app.ledger.money.idempotency import KEPT_MS, KeyedRequest, stored_outcome
from serve_app.ledger.money.reservation import Reservation, State

BEGUN = Moment(1_000_000)
FIRST = KeyedRequest(RequestId("first"), b"same", BEGUN)
CHARGED = replace(FIRST, outcome=b"outcome")
RESERVED = Reservation(
    FIRST.request_id,
    TenantId("tn"),
    KeyId("k"),
    ModelId("m"),
    Credits(5),
    BEGUN,
    Moment(BEGUN + 60_000),
)


def repeat(after_ms: int = 1_500, request_sha256: bytes = b"same") -> KeyedRequest:
    return KeyedRequest(RequestId("repeat"), request_sha256, Moment(BEGUN + after_ms))


def test_the_first_request_runs() -> None:
    assert stored_outcome(None, None, repeat()) is None


def test_a_repeat_of_a_charged_request_gets_its_outcome() -> None:
    charged = replace(RESERVED, state=State.COMMITTED)

    assert stored_outcome(CHARGED, charged, repeat()) == b"outcome"
    assert stored_outcome(CHARGED, None, repeat(KEPT_MS - 1)) == b"outcome", "it may be deleted"


@pytest.mark.parametrize("state", [State.VOIDED, State.EXPIRED])
@pytest.mark.parametrize("known", [FIRST, CHARGED])
def test_a_request_that_was_not_charged_frees_its_key(known: KeyedRequest, state: State) -> None:
    reserved = replace(RESERVED, state=state)

    assert stored_outcome(known, reserved, repeat()) is None
    assert stored_outcome(known, reserved, repeat(request_sha256=b"other")) is None
    assert stored_outcome(FIRST, None, repeat()) is None, "a crash undid the reservation"


@pytest.mark.parametrize("state", [State.PENDING, State.COMMITTED])
def test_a_key_serves_one_request(state: State) -> None:
    known = CHARGED if state is State.COMMITTED else FIRST

    with pytest.raises(IdempotencyKeyReused):
        stored_outcome(known, replace(RESERVED, state=state), repeat(request_sha256=b"other"))


@pytest.mark.parametrize(
    ("after_ms", "wait_s"), [(0, 1), (1_500, 2), (20_000, 20), (59_000, 1), (90_000, 1)]
)
def test_a_repeat_of_a_running_request_waits_as_long_again_but_not_past_its_expiry(
    after_ms: int, wait_s: int
) -> None:
    with pytest.raises(IdempotencyKeyInUse) as in_use:
        stored_outcome(FIRST, RESERVED, repeat(after_ms))

    assert in_use.value.retry_after_s == wait_s


@given(
    state=st.sampled_from(State),
    outcome=st.sampled_from([None, b"outcome"]),
    sha256=st.sampled_from([b"same", b"other"]),
    age_ms=st.integers(0, 10 * KEPT_MS),
)
def test_a_key_is_unknown_after_a_day_or_to_its_own_request(
    state: State, outcome: bytes | None, sha256: bytes, age_ms: int
) -> None:
    known, reserved = replace(FIRST, outcome=outcome), replace(RESERVED, state=state)
    own = replace(repeat(age_ms, sha256), request_id=FIRST.request_id)

    assert stored_outcome(known, reserved, repeat(KEPT_MS + age_ms, sha256)) is None
    assert stored_outcome(known, reserved, own) is None
