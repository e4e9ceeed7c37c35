"""Table tests of the reservation state machine."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.domain.errors import ReservationClosed
from serve_app.domain.model import ServiceTier
from serve_app.domain.model_card import Prices, Tariff
from serve_app.domain.units import Credits, KeyId, ModelId, Moment, RequestId, TenantId, Tokens
from serve_app.ledger.money import reservation
from serve_app.ledger.money.pricing import PriceList
from serve_app.ledger.money.reservation import Reservation, Settlement, State
from serve_app.ports import Usage

FREE = Prices(0, flex=0, priority=0)

PENDING = Reservation(
    RequestId("r1"),
    TenantId("tn_acme"),
    KeyId("k1"),
    ModelId("embedded"),
    Credits(30),
    created_at=Moment(0),
    expires_at=Moment(60),
)
COMMITTED = replace(PENDING, state=State.COMMITTED, charged=Credits(12))
VOIDED = replace(PENDING, state=State.VOIDED)
EXPIRED = replace(PENDING, state=State.EXPIRED)


def settled(state: State, charged: int, returned: int) -> Settlement:
    return Settlement(state, Credits(charged), Credits(returned))


def test_a_new_id_reserves_and_a_repeat_does_not_reserve_twice() -> None:
    assert reservation.must_reserve(None, PENDING)
    assert not reservation.must_reserve(PENDING, PENDING)


@pytest.mark.parametrize(
    "known",
    [
        pytest.param(COMMITTED, id="a committed id cannot buy a second computation"),
        pytest.param(VOIDED, id="a voided id cannot come back"),
        pytest.param(EXPIRED, id="an expired id cannot come back"),
        pytest.param(replace(PENDING, amount=Credits(31)), id="same id, another amount"),
        pytest.param(replace(PENDING, tenant=TenantId("tn_b")), id="same id, another tenant"),
        pytest.param(replace(PENDING, model=ModelId("other")), id="same id, another model"),
    ],
)
def test_an_id_belongs_to_one_reservation_permanently(known: Reservation) -> None:
    with pytest.raises(ReservationClosed):
        reservation.must_reserve(known, PENDING)


@pytest.mark.parametrize(
    ("known", "amount", "settlement"),
    [
        pytest.param(PENDING, 30, settled(State.COMMITTED, 30, 0), id="all of it"),
        pytest.param(PENDING, 12, settled(State.COMMITTED, 12, 18), id="the rest goes back"),
        pytest.param(PENDING, 0, settled(State.COMMITTED, 0, 30), id="nothing"),
        pytest.param(COMMITTED, 12, None, id="a repeat is harmless"),
    ],
)
def test_a_commit_charges_once(
    known: Reservation, amount: int, settlement: Settlement | None
) -> None:
    assert reservation.commit(known, Credits(amount)) == settlement


@pytest.mark.parametrize(
    ("known", "amount", "state"),
    [
        pytest.param(VOIDED, 12, "voided", id="after a void"),
        pytest.param(EXPIRED, 12, "expired", id="after the expiry"),
        pytest.param(COMMITTED, 13, "committed", id="after a commit of another amount"),
        pytest.param(None, 12, "unknown", id="never reserved"),
    ],
)
def test_a_late_commit_is_refused(known: Reservation | None, amount: int, state: str) -> None:
    with pytest.raises(ReservationClosed) as refused:
        reservation.commit(known, Credits(amount))

    assert refused.value.state == state


@pytest.mark.parametrize("amount", [-1, 31])
def test_a_charge_above_the_reserved_amount_is_an_internal_error(amount: int) -> None:
    with pytest.raises(AssertionError):
        reservation.commit(PENDING, Credits(amount))


@pytest.mark.parametrize(
    ("known", "void", "reverse"),
    [
        pytest.param(
            PENDING, settled(State.VOIDED, 0, 30), settled(State.VOIDED, 0, 30), id="pending"
        ),
        pytest.param(COMMITTED, None, settled(State.VOIDED, 0, 12), id="committed"),
        pytest.param(VOIDED, None, None, id="voided"),
        pytest.param(EXPIRED, None, None, id="expired"),
        pytest.param(None, None, None, id="never reserved"),
    ],
)
def test_only_a_reversal_undoes_a_commit(
    known: Reservation | None, void: Settlement | None, reverse: Settlement | None
) -> None:
    assert reservation.void(known) == void
    assert reservation.reverse(known) == reverse


def test_work_costs_the_price_per_document_of_its_model_and_tier() -> None:
    small, free = ModelId("small"), ModelId("free")
    prices = PriceList({small: Tariff(Prices(8, flex=3, priority=20)), free: Tariff(FREE)})
    work = Usage(1_000, Tokens(70_000))

    assert prices.price(small, work, ServiceTier.DEFAULT) == 8_000
    assert prices.price(small, work, ServiceTier.PRIORITY) == 20_000
    assert prices.price(small, work, ServiceTier.FLEX) == 3_000
    assert prices.price(small, Usage(0, Tokens(0)), ServiceTier.DEFAULT) == 0
    assert prices.price(free, work, ServiceTier.DEFAULT) == 0


@pytest.mark.parametrize(
    ("tokens", "tier", "amount"),
    [
        (0, ServiceTier.DEFAULT, 16),
        (1, ServiceTier.DEFAULT, 17),
        (1_000_000, ServiceTier.DEFAULT, 50_016),
        (1_000_001, ServiceTier.DEFAULT, 50_017),
        (1_000_000, ServiceTier.FLEX, 20_006),
        (1_000_000, ServiceTier.PRIORITY, 90_040),
    ],
)
def test_a_price_of_tokens_is_added_and_rounded_up(
    tokens: int, tier: ServiceTier, amount: int
) -> None:
    tariff = Tariff(Prices(8, flex=3, priority=20), Prices(50_000, flex=20_000, priority=90_000))
    prices = PriceList({ModelId("m"): tariff})

    assert prices.price(ModelId("m"), Usage(2, Tokens(tokens)), tier) == amount


@settings(deadline=None)
@given(st.data())
def test_more_work_never_costs_less(data: st.DataObject) -> None:
    """The price of the most work that a job can need is reserved, so it must cover the charge."""
    price = st.integers(0, 10**9)
    tariff = Tariff(*(Prices(*data.draw(st.tuples(price, price, price))) for _ in range(2)))
    more = Usage(data.draw(st.integers(0, 10_000)), Tokens(data.draw(st.integers(0, 10**9))))
    less = Usage(
        data.draw(st.integers(0, more.documents)), Tokens(data.draw(st.integers(0, more.tokens)))
    )
    prices, tier = PriceList({ModelId("m"): tariff}), data.draw(st.sampled_from(ServiceTier))

    assert prices.price(ModelId("m"), less, tier) <= prices.price(ModelId("m"), more, tier)
