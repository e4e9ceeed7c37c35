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
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group_of(item)))


def _group_of(item: pytest.Item) -> str:
    """Return the name of the group that ``--dist loadgroup`` runs in one worker.

    Tests that share a service or states of training, which take a while to start or compute, are a
    group; so are the other tests of a file, or of a file and database.
    """
    if TRAINING in item.path.parents or "service" in getattr(item, "fixturenames", ()):
        return str(item.path.parent)
    callspec = getattr(item, "callspec", None)
    database = callspec.params.get("database", "") if callspec else ""
    return f"{item.path} {database}"
