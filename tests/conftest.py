"""Fixtures for all tests."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from testkit.log_leaks import leaks_in_logs

TRAINING = Path(__file__).parent / "unit" / "training"


@pytest.fixture(scope="session", autouse=True)
def no_leaks_in_logs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fail at the end of the run if a service in a temporary folder logged a secret or a text."""
    yield
    leaks = leaks_in_logs(tmp_path_factory.getbasetemp())
    assert not leaks, "Services logged secrets or texts:\n" + "\n".join(leaks)


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups in the same hook.
def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Group tests for ``--dist loadgroup``, so that those of a group run in one process.

    Tests that share what takes long to start are one group: those that use the service of their
    folder, and those of training, which use the same states. Otherwise, each file is a group.
    """
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(str(_shared_by(item) or item.path)))


def _shared_by(item: pytest.Item) -> Path | None:
    """Return the folder with whose tests the test shares something."""
    folder = item.path.parent
    shares = folder == TRAINING or "service" in getattr(item, "fixturenames", ())
    return folder if shares else None
