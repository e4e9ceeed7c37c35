"""Fixtures: a test application for each test."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.app import FakeApp
from tests.support.ledger_app import LedgerApp


@pytest.fixture
def app() -> Iterator[FakeApp]:
    built = FakeApp()
    yield built
    built.close()


@pytest.fixture
def ledger_app(migrated_file: Path, tmp_path: Path) -> Iterator[LedgerApp]:
    path = tmp_path / "rerank.db"
    shutil.copy(migrated_file, path)
    built = LedgerApp(f"sqlite:///{path}")
    yield built
    built.close()
