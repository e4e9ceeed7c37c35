"""Fixtures of the ledger tests, which run on SQLite and on PostgreSQL."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from serve_app.domain.model import Caller
from serve_app.domain.units import Seconds
from serve_app.ledger.db.engines import open_writer, opened
from tests.support.ledger import a_tenant


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    with opened(open_writer(database_url, Seconds(5), connections=8)) as engine:
        yield engine


@pytest.fixture
def acme(database_url: str) -> Caller:
    """A tenant with a credit of 100."""
    return a_tenant(database_url, 100)
