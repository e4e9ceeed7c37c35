"""Where the commands' tests get a database from."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def database_url(migrated_file: Path, tmp_path: Path) -> str:
    """A database with the ledger's tables and nothing in them."""
    path = tmp_path / "rerank.db"
    shutil.copy(migrated_file, path)
    return f"sqlite:///{path}"
