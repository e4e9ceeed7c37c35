"""Any batch limit from an operator leads to a valid one."""

import pytest

from serve_app.batching.batch_size import batch_limit


@pytest.mark.parametrize(
    ("wanted", "limit"),
    [
        (600, 600),
        (512, 512),
        (511, 512),
        (-1, 512),
        (8_193, 8_192),
        (600.0, 600),
        ("700", 700),
        (600.5, 8_192),
        (float("nan"), 8_192),
        ("many", 8_192),
        (None, 8_192),
    ],
)
def test_a_limit_is_clamped_to_fit_a_portion_and_the_warmed_up_sizes(
    wanted: object, limit: int
) -> None:
    assert batch_limit(wanted, 512, 8_192) == limit
