"""The one place where ledger tests get a database from.

SQLite in a temporary folder, or, where RERANK_TEST_DATABASE_URL names a PostgreSQL database that
may be emptied, that one.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from serve_app.domain.model import Caller
from serve_app.domain.units import Seconds
from serve_app.ledger.database import open_writer, opened, transaction
from serve_app.ledger.schema import migrate
from tests.unit.ledger.support import a_tenant

SHARED_URL = os.environ.get("RERANK_TEST_DATABASE_URL")  # noqa: TID251 - chosen by who runs them


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ledger") / "migrated.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
def empty_url(tmp_path: Path) -> str:
    """A database without tables."""
    if SHARED_URL is None:
        return f"sqlite:///{tmp_path / 'empty' / 'rerank.db'}"
    with transaction(SHARED_URL, Seconds(5)) as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    return SHARED_URL


@pytest.fixture
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database with the ledger's tables and nothing in them."""
    if SHARED_URL is not None:
        url: str = request.getfixturevalue("empty_url")
        migrate(url)
        return url
    path = tmp_path / "rerank.db"
    shutil.copy(request.getfixturevalue("migrated_file"), path)
    return f"sqlite:///{path}"


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    with opened(open_writer(database_url, Seconds(5), connections=8)) as engine:
        yield engine


@pytest.fixture
def acme(database_url: str) -> Caller:
    """A tenant that was granted 100."""
    return a_tenant(database_url, 100)
