"""Compare the wire formats with the golden files. See `tests.support.goldens`."""

import pytest

from tests.support.goldens import Case, answer, cases

CASES = cases()


def test_golden_files_exist() -> None:
    assert len(CASES) > 20


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_the_response_equals_the_golden_one(case: Case) -> None:
    assert answer(case) == case["answer"], case["about"]
