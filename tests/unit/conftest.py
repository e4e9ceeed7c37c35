"""What the ledger's, the commands' and the routes' tests begin with."""

import shutil
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from serve_app.ledger.db.schema import migrate
from testkit.postgres import Postgres, running

SQLITE, POSTGRESQL = "sqlite", "postgresql"
MIGRATED = "migrated"
_numbers = count()


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with the ledger's tables and nothing in them, to be copied."""
    path = tmp_path_factory.mktemp("ledger") / "migrated.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A server with a migrated template database."""
    with running(durable=False) as server:
        server.execute(f"CREATE DATABASE {MIGRATED}")
        migrate(server.url(MIGRATED))
        yield server


@pytest.fixture(params=[SQLITE, pytest.param(POSTGRESQL, marks=pytest.mark.slow)])
def kind(request: pytest.FixtureRequest) -> str:
    """The database of a test that runs on SQLite and on PostgreSQL."""
    return str(request.param)


@pytest.fixture
def empty_url(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without tables."""
    if kind == SQLITE:
        return f"sqlite:///{tmp_path / 'empty.db'}"
    return _database(request, "template0")


@pytest.fixture
def database_url(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database with empty ledger tables."""
    if kind == SQLITE:
        path = tmp_path / "rerank.db"
        shutil.copy(request.getfixturevalue("migrated_file"), path)
        return f"sqlite:///{path}"
    return _database(request, MIGRATED)


def _database(request: pytest.FixtureRequest, template: str) -> str:
    server: Postgres = request.getfixturevalue("postgres")
    name = f"test_{next(_numbers)}"
    server.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    request.addfinalizer(lambda: server.execute(f"DROP DATABASE {name} WITH (FORCE)"))
    return server.url(name)
