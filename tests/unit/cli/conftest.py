"""A database for the tests of the commands."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def database_url(migrated_file: Path, tmp_path: Path) -> str:
    """Return the URL of a database with the ledger's empty tables."""
    path = tmp_path / "rerank.db"
    shutil.copy(migrated_file, path)
    return f"sqlite:///{path}"
