"""Lock waits, timeouts and the cost of broken connections."""

import time
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import Engine, event, func, select, text
from sqlalchemy.exc import DBAPIError, OperationalError

from serve_app.domain.errors import LedgerUnavailable
from serve_app.domain.model import Caller
from serve_app.domain.units import Seconds
from serve_app.ledger.db.engines import open_writer, opened, reading
from serve_app.ledger.db.schema import migrate
from serve_app.ledger.db.tables import tenants
from tests.support.ledger import TIMEOUT_S, a_tenant, database_held
from tests.unit.conftest import POSTGRESQL, SQLITE

COUNT = select(func.count()).select_from(tenants)

on_sqlite = pytest.mark.parametrize("kind", [SQLITE])
"""For tests of SQLite's lock waits."""


@on_sqlite
def test_a_reader_does_not_wait_for_a_writer(database_url: str, acme: Caller) -> None:
    with database_held(database_url):
        migrate(database_url, Seconds(0.1))
        with reading(database_url, Seconds(0.1)) as connection:
            assert connection.scalar(select(tenants.c.id)) == acme.tenant


def test_a_report_is_one_snapshot(database_url: str) -> None:
    with reading(database_url, TIMEOUT_S) as connection:
        before = connection.scalar(COUNT)
        a_tenant(database_url, 0, name="later")
        after = connection.scalar(COUNT)

    assert (before, after) == (0, 0)


def test_a_reader_cannot_write(database_url: str) -> None:
    with (
        pytest.raises(LedgerUnavailable, match=r"read-?only"),
        reading(database_url, TIMEOUT_S) as connection,
    ):
        connection.execute(text("UPDATE tenants SET available = 1"))


def test_a_writer_survives_the_loss_of_its_connection(engine: Engine) -> None:
    with engine.connect() as connection:
        lost: Any = connection.connection.dbapi_connection
    lost.close()  # As after a restart of the server.

    with engine.begin() as connection:
        assert connection.scalar(COUNT) == 0


@pytest.mark.parametrize("kind", [POSTGRESQL])
@pytest.mark.parametrize("pre_ping", [True, False], ids=["not pipelined", "pipelined"])
def test_the_server_ends_the_transaction_of_a_vanished_writer(
    database_url: str, *, pre_ping: bool
) -> None:
    with (
        opened(open_writer(database_url, Seconds(0.3), pre_ping=pre_ping)) as vanished,
        opened(open_writer(database_url, TIMEOUT_S)) as other,
        vanished.connect() as silent,
    ):
        silent.execute(text("LOCK TABLE tenants IN ACCESS EXCLUSIVE MODE"))

        with other.begin() as connection:  # Within its own timeout.
            assert connection.scalar(COUNT) == 0
        with pytest.raises(DBAPIError, match=r"idle|closed"):
            silent.execute(COUNT)


def waits_for_the_disk(engine: Engine) -> bool:
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            return bool(connection.scalar(text("PRAGMA synchronous")) == 2)
        return bool(connection.scalar(text("SHOW synchronous_commit")) == "on")


def test_only_a_durable_writer_waits_for_the_disk(engine: Engine, database_url: str) -> None:
    with opened(open_writer(database_url, TIMEOUT_S, durable=False)) as other:
        assert waits_for_the_disk(engine)
        assert not waits_for_the_disk(other)
        with suppress(OperationalError), other.begin():
            raise OperationalError("rolled back", {}, Exception())
        assert not waits_for_the_disk(other)
        assert waits_for_the_disk(engine)


@on_sqlite
def test_the_wait_for_the_write_lock_ends_in_time(database_url: str) -> None:
    with (
        database_held(database_url),
        opened(open_writer(database_url, Seconds(0.2))) as engine,
    ):
        started = time.monotonic()
        with pytest.raises(OperationalError, match="locked"), engine.begin():
            pass

    assert 0.2 <= time.monotonic() - started < 4, "SQLite itself would wait for 5 s"


@on_sqlite
def test_an_error_other_than_a_lock_is_reported_immediately(database_url: str) -> None:
    def forbid_writing(dbapi_connection: Any, _record: object) -> None:
        dbapi_connection.execute("PRAGMA query_only = ON")

    with opened(open_writer(database_url, TIMEOUT_S)) as engine:
        event.listen(engine, "connect", forbid_writing)
        started = time.monotonic()
        with pytest.raises(OperationalError, match="readonly"), engine.begin():
            pass

    assert time.monotonic() - started < TIMEOUT_S / 2
