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
    """Group tests for ``--dist loadgroup``: each file is a group, and so are the tests of training,
    which share states that take a while to compute."""
    for item in items:
        group = TRAINING if TRAINING in item.path.parents else item.path
        item.add_marker(pytest.mark.xdist_group(str(group)))
