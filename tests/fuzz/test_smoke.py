"""A short run of the fuzzer; ``make test-fuzz`` runs it for ten minutes."""

import pytest

from tests.fuzz.__main__ import fuzz


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_generated_request_gets_a_wrong_answer() -> None:
    assert fuzz(seconds=25, seed=1) == 0
