"""`check_balances` returns exactly the balances that do not add up."""

import pytest
from sqlalchemy import Engine, Update, update

from serve_app.domain.units import Credits, Moment, Tokens
from serve_app.ledger.db.tables import charges, grants, reservations, tenants, usage_days
from serve_app.ledger.money.calendar import MILLISECONDS_PER_DAY as DAY
from serve_app.ledger.reports.balances import Balance, balances, check_balances
from serve_app.ledger.writer.retention import step
from serve_app.ports import Usage
from tests.support import postings
from tests.support.ledger import NOW, R1, a_reservation, a_tenant


@pytest.fixture
def books(engine: Engine, database_url: str) -> Engine:
    """acme has 3 summed up, 5 charged and 7 pending; bolt has no credit; core only has a grant."""
    acme = a_tenant(database_url, 100)
    a_tenant(database_url, 0, name="bolt")
    a_tenant(database_url, 50, name="core")
    for request_id, amount, at in ((R1, 3, NOW), ("r2", 5, NOW + 9 * DAY)):
        wanted = a_reservation(acme, amount, request_id)
        with engine.begin() as connection:
            postings.reserve(connection, wanted)
        with engine.begin() as connection:
            postings.commit(
                connection, wanted.request_id, Credits(amount), Usage(1, Tokens(9)), Moment(at)
            )
    with engine.begin() as connection:
        postings.reserve(connection, a_reservation(acme, 7, "r3"))
    with engine.begin() as connection:
        step(connection, Moment(NOW + 9 * DAY), 8, 100)
    return engine


def balances_by_grant(engine: Engine) -> dict[Credits, Balance]:
    with engine.begin() as connection:
        return {balance.granted: balance for balance in balances(connection)}


def test_a_balance_counts_rows_and_sums(books: Engine) -> None:
    by_grant = balances_by_grant(books)

    acme = by_grant[Credits(100)]
    assert (acme.available, acme.pending, acme.charged) == (85, 7, 8)
    assert {granted: each.available for granted, each in by_grant.items()} == {
        0: 0,
        50: 50,
        100: 85,
    }
    with books.begin() as connection:
        assert check_balances(connection) == []
        assert balances(connection, acme.tenant) == [acme]


@pytest.mark.parametrize(
    "spoil",
    [
        update(tenants).values(available=tenants.c.available + 1),
        update(grants).values(amount=grants.c.amount + 1),
        update(charges).values(amount=charges.c.amount + 1),
        update(usage_days).values(charged=usage_days.c.charged + 1),
        update(reservations).where(reservations.c.id == "r3").values(amount=8),
    ],
    ids=["available", "granted", "charged", "summed up", "pending"],
)
def test_a_difference_of_one_micro_dollar_is_detected(books: Engine, spoil: Update) -> None:
    with books.begin() as connection:
        connection.execute(spoil)
        assert [each for each in check_balances(connection) if each.granted >= 100]
