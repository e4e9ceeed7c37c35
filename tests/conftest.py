"""Fixtures for all tests."""

from collections.abc import Iterator

import pytest

from testkit.log_leaks import leaks_in_logs


@pytest.fixture(scope="session", autouse=True)
def no_leaks_in_logs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fail at the end of the run if a service in a temporary folder logged a secret or a text."""
    yield
    leaks = leaks_in_logs(tmp_path_factory.getbasetemp())
    assert not leaks, "Services logged secrets or texts:\n" + "\n".join(leaks)
