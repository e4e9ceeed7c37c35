"""Charges stay exactly-once through every kind of fault under traffic, on each database."""

from pathlib import Path

import pytest

from tests.chaos.faults import DECKS, POSTGRESQL, SQLITE
from tests.chaos.harness import run

KILLS = {SQLITE: 11, POSTGRESQL: 17}
"""Enough kills for each kind of fault. ``python -m tests.chaos`` runs longer."""


@pytest.mark.ray
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("database", [SQLITE, POSTGRESQL])
def test_every_200_is_charged_once_and_nothing_else_is(database: str, tmp_path: Path) -> None:
    report = run(database, kills=KILLS[database], seed=1, folder=tmp_path, say=lambda _: None)

    assert report.violations == []
    assert report.kills >= KILLS[database]
    assert set(report.faults) == {str(kind) for kind in DECKS[database]}
    assert report.requests["200"] > 0
