"""A house for each test."""

from collections.abc import Iterator

import pytest

from tests.contract.house import House


@pytest.fixture
def house() -> Iterator[House]:
    built = House()
    yield built
    built.close()
