"""The PostgreSQL pipeline waits less often and reports the same failures."""

import time
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, func, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError, OperationalError

from serve_app.domain.model import Caller
from serve_app.ledger.db.engines import open_writer, opened
from serve_app.ledger.db.tables import reservations
from serve_app.ledger.posting.books import Books
from serve_app.ledger.posting.sql import RESERVE
from tests.chaos.database_proxy import DatabaseProxy
from tests.support import postings
from tests.support.ledger import TIMEOUT_S, a_reservation
from tests.unit.conftest import POSTGRESQL

pytestmark = pytest.mark.parametrize("kind", [POSTGRESQL])
COUNT = select(func.count()).select_from(reservations)
NO_ROW_FOR_IT = {
    "id": "r2",
    "tenant_id": "nobody",
    "key_id": "no-key",
    "model": "embedded",
    "amount": 1,
    "state": "pending",
    "charged": 0,
    "documents": 0,
    "tokens": 0,
    "created_at": 0,
    "expires_at": 0,
    "settled_at": None,
    "key_capped": False,
}


@pytest.fixture
def proxy(database_url: str) -> Iterator[DatabaseProxy]:
    port = make_url(database_url).port
    assert port is not None
    relay = DatabaseProxy(port)
    yield relay
    relay.close()


@pytest.fixture
def pipelined(proxy: DatabaseProxy, database_url: str) -> Iterator[Engine]:
    url = make_url(database_url).set(port=proxy.port)
    with opened(open_writer(url.render_as_string(), TIMEOUT_S, pre_ping=False)) as engine:
        yield engine


def test_a_transaction_has_two_round_trips(
    proxy: DatabaseProxy, pipelined: Engine, acme: Caller
) -> None:
    def reserve(number: int) -> None:
        wanted = a_reservation(acme, 10, f"r{number}")
        with pipelined.begin() as connection:
            books = Books.open(connection, {acme.tenant}, ())
            books.reserve(wanted)
            books.write()

    reserve(0)  # A new connection runs more queries.
    before = proxy.questions
    for number in range(1, 10):
        reserve(number)

    assert proxy.questions - before == 2 * 9
    with pipelined.begin() as connection:
        assert connection.scalar(COUNT) == 10


def test_a_lost_connection_is_reported_as_usual(
    proxy: DatabaseProxy, pipelined: Engine, acme: Caller
) -> None:
    with pipelined.begin() as connection:
        assert connection.scalar(COUNT) == 0
    proxy.cut()

    with pytest.raises(OperationalError), pipelined.begin() as connection:
        postings.reserve(connection, a_reservation(acme, 10))

    with pipelined.begin() as connection:
        postings.reserve(connection, a_reservation(acme, 10))


def test_a_deferred_failure_is_raised_at_commit(pipelined: Engine) -> None:
    with pipelined.connect() as connection:
        transaction = connection.begin()
        connection.execute(RESERVE, NO_ROW_FOR_IT)

        with pytest.raises(IntegrityError):
            transaction.commit()

    with pipelined.begin() as connection:
        assert connection.scalar(COUNT) == 0


def test_a_failure_keeps_its_name_despite_later_statements(pipelined: Engine) -> None:
    def fail() -> None:
        with pipelined.begin() as connection:
            connection.execute(RESERVE, NO_ROW_FOR_IT)
            time.sleep(0.05)  # The error arrives meanwhile, and the next statement sees it.
            connection.execute(RESERVE, NO_ROW_FOR_IT)

    with pytest.raises(IntegrityError):
        fail()

    with pipelined.begin() as connection:
        assert connection.scalar(COUNT) == 0


def test_a_statement_that_cannot_be_sent_does_not_affect_later_ones(database_url: str) -> None:
    """The connection is then out of step with its results without showing it."""
    too_many = select(reservations.c.id).where(reservations.c.id.in_(map(str, range(70_000))))

    with opened(open_writer(database_url, TIMEOUT_S, pre_ping=False)) as engine:
        with pytest.raises(OperationalError), engine.begin() as connection:
            connection.execute(too_many)

        for _ in range(2):
            with engine.begin() as connection:
                assert connection.scalar(COUNT) == 0


def test_our_errors_roll_back_the_sent_statements(pipelined: Engine, acme: Caller) -> None:
    def fail() -> None:
        with pipelined.begin() as connection:
            postings.reserve(connection, a_reservation(acme, 10))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()

    with pipelined.begin() as connection:
        assert connection.scalar(COUNT) == 0
