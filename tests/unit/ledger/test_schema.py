"""Concurrent processes can migrate a database, and the schema matches the code."""

import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text

from serve_app.domain.errors import LedgerUnavailable
from serve_app.ledger.db.engines import parse_url, transaction
from serve_app.ledger.db.schema import migrate
from serve_app.ledger.db.tables import metadata
from tests.support.ledger import TIMEOUT_S

MIGRATE = "import sys; from serve_app.ledger.db.schema import migrate; migrate(sys.argv[1])"


def test_the_migrations_create_the_tables_that_the_code_uses(database_url: str) -> None:
    with transaction(database_url, TIMEOUT_S) as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)

    assert differences == []


@pytest.mark.slow
def test_concurrent_processes_migrate_once(empty_url: str) -> None:
    processes = [subprocess.Popen([sys.executable, "-c", MIGRATE, empty_url]) for _ in range(3)]

    assert [process.wait(180) for process in processes] == [0, 0, 0]
    migrate(empty_url)
    with transaction(empty_url, TIMEOUT_S) as connection:
        assert connection.scalar(text("SELECT count(*) FROM alembic_version")) == 1


def test_a_schema_of_a_newer_version_is_left_alone(database_url: str) -> None:
    with transaction(database_url, TIMEOUT_S) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'v9999'"))

    with pytest.raises(LedgerUnavailable):
        migrate(database_url)


@pytest.mark.parametrize("url", ["", "nonsense", "sqlite://", "sqlite:///:memory:", "mysql://h/d"])
def test_a_database_that_the_ledger_cannot_use_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"malformed|ledger"):
        parse_url(url)


def test_a_sqlite_ledger_survives_a_power_loss(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'rerank.db'}"
    migrate(url)

    with transaction(url, TIMEOUT_S) as connection:
        pragmas = [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        ]

    assert pragmas == ["wal", 2, 1]
