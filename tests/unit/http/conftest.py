"""Fixtures: a test application for each test."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.app import House
from tests.support.ledger_app import LedgerHouse


@pytest.fixture
def house() -> Iterator[House]:
    built = House()
    yield built
    built.close()


@pytest.fixture
def ledger_house(migrated_file: Path, tmp_path: Path) -> Iterator[LedgerHouse]:
    path = tmp_path / "rerank.db"
    shutil.copy(migrated_file, path)
    built = LedgerHouse(f"sqlite:///{path}")
    yield built
    built.close()
