"""What the ledger's, the commands' and the routes' tests begin with."""

from pathlib import Path

import pytest

from serve_app.ledger.db.schema import migrate


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with the ledger's tables and nothing in them, to be copied."""
    path = tmp_path_factory.mktemp("ledger") / "migrated.db"
    migrate(f"sqlite:///{path}")
    return path
