"""Grants are idempotent, corrections and refunds are limited, and balances add up."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine

from serve_app.domain.model import Caller
from serve_app.domain.units import Credits, Moment, RequestId, TenantId
from serve_app.ledger.accounts import credit_grants
from serve_app.ledger.accounts.credit_grants import Grant
from serve_app.ledger.accounts.tenant_accounts import AMOUNT_MAX, AccountProblem
from serve_app.ledger.db.audit_log import AuditContext, read_entries
from tests.support import postings
from tests.support.ledger import AUDIT, NOW, R1, USAGE, a_reservation, a_tenant, balance_in

LATER = AuditContext("another", Moment(NOW + 5))


def grant(
    engine: Engine,
    caller: Caller,
    amount: int,
    key: str | None = None,
    reason: str = "invoice 17",
) -> Grant:
    with engine.begin() as connection:
        return credit_grants.grant(
            connection, caller.tenant, Credits(amount), reason, AUDIT, idempotency_key=key
        )


def refund(
    engine: Engine, amount: int | None, request_id: RequestId = R1, key: str | None = None
) -> Grant:
    wanted = None if amount is None else Credits(amount)
    with engine.begin() as connection:
        return credit_grants.refund(
            connection, request_id, wanted, "bad day", LATER, idempotency_key=key
        )


@pytest.fixture
def charged(engine: Engine, acme: Caller) -> Caller:
    """acme with a charge of 30 for r1, out of 100."""
    with engine.begin() as connection:
        postings.reserve(connection, a_reservation(acme, 30))
        postings.commit(connection, R1, Credits(30), USAGE, NOW)
    return acme


def many_at_once(call: Callable[[], object], times: int = 6) -> list[object]:
    def outcome(_: int) -> object:
        try:
            return call()
        except AccountProblem as problem:
            return problem

    with ThreadPoolExecutor(4) as threads:
        return list(threads.map(outcome, range(times)))


def test_a_grant_can_be_spent_and_is_listed(engine: Engine, acme: Caller) -> None:
    made = grant(engine, acme, 25)

    assert balance_in(engine).available == 125
    with engine.connect() as connection:
        listed = credit_grants.list_grants(connection, acme.tenant)
    assert made in listed
    assert {each.amount for each in listed} == {100, 25}
    assert (made.kind, made.reason, made.who, made.request_id) == (
        "grant",
        "invoice 17",
        "tester",
        None,
    )


@pytest.mark.parametrize("amount", [0, AMOUNT_MAX + 1, -AMOUNT_MAX - 1, 2**63, 10**30])
def test_absurd_amounts_are_refused(engine: Engine, acme: Caller, amount: int) -> None:
    with pytest.raises(AccountProblem, match="amount"):
        grant(engine, acme, amount)

    assert balance_in(engine).granted == 100


@pytest.mark.parametrize("reason", ["", "  ", "two\nlines", "x" * 513])
def test_a_grant_needs_a_reason_that_can_be_printed(
    engine: Engine, acme: Caller, reason: str
) -> None:
    with pytest.raises(AccountProblem, match="reason"):
        grant(engine, acme, 1, reason=reason)

    assert balance_in(engine).granted == 100


def test_a_correction_takes_at_most_the_available_credit(engine: Engine, acme: Caller) -> None:
    made = grant(engine, acme, -40)

    assert made.kind == "correction"
    assert balance_in(engine).available == 60
    with pytest.raises(AccountProblem, match="less than that"):
        grant(engine, acme, -61)
    assert balance_in(engine).available == 60
    grant(engine, acme, -60)
    assert balance_in(engine).available == 0


def test_a_correction_does_not_take_reserved_credit(engine: Engine, acme: Caller) -> None:
    with engine.begin() as connection:
        postings.reserve(connection, a_reservation(acme, 70))

    with pytest.raises(AccountProblem):
        grant(engine, acme, -31)
    grant(engine, acme, -30)

    assert (balance_in(engine).available, balance_in(engine).pending) == (0, 70)


@pytest.mark.parametrize("amount", [5, -5])
def test_a_grant_of_zero_is_refused(engine: Engine, amount: int) -> None:
    with pytest.raises(AccountProblem, match="tn_x"), engine.begin() as connection:
        credit_grants.grant(connection, TenantId("tn_x"), Credits(amount), "why", AUDIT)


def test_a_repeated_payment_is_granted_once(engine: Engine, acme: Caller) -> None:
    first = grant(engine, acme, 25, "payment-9")
    again = grant(engine, acme, 25, "payment-9", reason="repeated")
    other = grant(engine, acme, 25, "payment-10")

    assert again == first
    assert other.id != first.id
    assert balance_in(engine).available == 150


def test_concurrent_repeats_of_a_payment_are_granted_once(engine: Engine, acme: Caller) -> None:
    outcomes = many_at_once(lambda: grant(engine, acme, 25, "payment-9"))

    assert len({each.id for each in outcomes if isinstance(each, Grant)}) == 1
    assert all(isinstance(each, Grant) for each in outcomes)
    assert balance_in(engine).available == 125


def test_an_idempotency_key_belongs_to_one_grant(
    database_url: str, engine: Engine, acme: Caller
) -> None:
    bolt = a_tenant(database_url, 0, "bolt")
    grant(engine, acme, 25, "payment-9")

    for caller, amount in ((acme, 26), (bolt, 25)):
        with pytest.raises(AccountProblem, match="another grant"):
            grant(engine, caller, amount, "payment-9")
    with pytest.raises(AccountProblem, match="idempotency key"):
        grant(engine, acme, 25, "")


@pytest.mark.usefixtures("charged")
def test_refunds_return_at_most_the_charge(engine: Engine) -> None:
    first = refund(engine, 10)
    for absurd in (21, 0, -1, 2**63):
        with pytest.raises(AccountProblem, match="20 micro-dollars of the charge can be refunded"):
            refund(engine, absurd)
    rest = refund(engine, None)
    with pytest.raises(AccountProblem, match="0 micro-dollars of the charge can be refunded"):
        refund(engine, None)

    assert (first.amount, rest.amount) == (10, 20)
    assert (first.kind, first.request_id, first.who) == ("refund", R1, "another")
    books = balance_in(engine)
    assert (books.available, books.charged, books.granted) == (100, 30, 130)


@pytest.mark.usefixtures("charged")
def test_concurrent_refunds_never_exceed_the_charge(engine: Engine) -> None:
    outcomes = many_at_once(lambda: refund(engine, 8))

    assert sum(isinstance(each, Grant) for each in outcomes) == 3
    assert balance_in(engine).available == 70 + 24


def test_a_repeated_refund_is_given_once(engine: Engine, charged: Caller) -> None:
    first = refund(engine, None, key="ticket-4")
    again = refund(engine, None, key="ticket-4")
    with pytest.raises(AccountProblem, match="another grant"):
        refund(engine, 10, key="ticket-4")
    with pytest.raises(AccountProblem, match="another grant"):
        grant(engine, charged, 30, "ticket-4")

    assert (again, again.amount) == (first, 30)
    assert balance_in(engine).available == 100


def test_reversing_a_charge_takes_back_its_refund(engine: Engine, charged: Caller) -> None:
    refund(engine, 10)

    with engine.begin() as connection:
        postings.reverse(connection, R1, USAGE, NOW)
        listed = credit_grants.list_grants(connection, charged.tenant)
        *_, entry = read_entries(connection, charged.tenant)

    (correction,) = (each for each in listed if each.kind == "correction")
    books = balance_in(engine)
    assert (books.available, books.charged, books.granted) == (100, 0, 100)
    assert books.adds_up
    assert (correction.amount, correction.request_id) == (-10, R1)
    assert (entry.who, entry.action) == ("ledger", "credit.correction")


def test_uncharged_and_reversed_requests_are_not_refunded(engine: Engine, charged: Caller) -> None:
    with engine.begin() as connection:
        postings.reserve(connection, a_reservation(charged, 5, "pending"))
    for request_id in ("pending", "nobody", ""):
        with pytest.raises(AccountProblem, match="no charge"):
            refund(engine, 1, RequestId(request_id))

    with engine.begin() as connection:
        postings.reverse(connection, R1, USAGE, NOW)
    with pytest.raises(AccountProblem, match="no charge"):
        refund(engine, None)
    assert balance_in(engine).granted == 100


def test_every_change_of_credit_is_recorded_and_a_refused_one_is_not(
    engine: Engine, charged: Caller
) -> None:
    grant(engine, charged, 25, "payment-9")
    grant(engine, charged, 25, "payment-9")
    grant(engine, charged, -5)
    refund(engine, 10)
    with pytest.raises(AccountProblem):
        refund(engine, 21)

    with engine.connect() as connection:
        entries = read_entries(connection, charged.tenant)
    assert [
        (entry.action, entry.who, entry.subject, entry.details["amount"])
        for entry in entries
        if entry.action.startswith("credit.")
    ] == [
        ("credit.grant", "tester", charged.tenant, 100),
        ("credit.grant", "tester", charged.tenant, 25),
        ("credit.correction", "tester", charged.tenant, -5),
        ("credit.refund", "another", R1, 10),
    ]


def test_a_grant_needs_an_author(engine: Engine, acme: Caller) -> None:
    with pytest.raises(AccountProblem, match="who"), engine.begin() as connection:
        credit_grants.grant(connection, acme.tenant, Credits(1), "why", AuditContext("", NOW))
