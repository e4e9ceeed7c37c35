"""A portion that would break the device is rejected before it gets there."""

import numpy as np
import pytest

from serve_app.domain.errors import EngineFailure
from serve_app.domain.model import Portion
from serve_app.domain.units import RequestId
from serve_app.engine.unpacking import InputLimits, unpack

LIMITS = InputLimits(vocabulary=100, pair_tokens_max=4, batch_tokens_max=64)


def portion(ids: list[int], lengths: tuple[int, ...], query_tokens: tuple[int, ...]) -> Portion:
    return Portion(RequestId("r1"), np.array(ids, dtype="<i4").tobytes(), lengths, query_tokens)


def test_pairs_keep_their_order() -> None:
    first, second = unpack(portion([1, 2, 3, 99, 0], (2, 3), (1, 2)), LIMITS)

    assert (first.ids.tolist(), first.query_tokens) == ([1, 2], 1)
    assert (second.ids.tolist(), second.query_tokens) == ([3, 99, 0], 2)


def test_an_empty_portion_has_no_pairs() -> None:
    assert unpack(portion([], (), ()), LIMITS) == []


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        pytest.param(portion([1, 2], (3,), (1,)), "do not add up", id="too few ids"),
        pytest.param(portion([1, 2], (2,), ()), "one query length", id="no query length"),
        pytest.param(portion([1, 2], (2,), (3,)), "query segment", id="query beyond the pair"),
        pytest.param(portion([1] * 5, (5,), (1,)), "takes 1 to 4", id="longer than positions"),
        pytest.param(portion([1, 1], (2, 0), (1, 0)), "takes 1 to 4", id="an empty pair"),
        pytest.param(portion([1, 100], (2,), (1,)), "outside the vocabulary", id="unknown id"),
        pytest.param(portion([1, -1], (2,), (1,)), "outside the vocabulary", id="negative id"),
    ],
)
def test_input_that_the_model_cannot_take_is_an_engine_failure(
    broken: Portion, reason: str
) -> None:
    with pytest.raises(EngineFailure, match=reason):
        unpack(broken, LIMITS)
