"""From logits to an order, and from a logit to the score a client sees. Pure."""

import math
from collections.abc import Sequence

from serve_app.domain.errors import EngineFailure


def rank(logits: Sequence[float], top_n: int | None) -> list[int]:
    """Indices of the ``top_n`` best documents, best first; equal logits keep request order.

    Args:
        logits: One per document, in request order. Any real range.
        top_n: 1 or more; ``None``, or more than there are documents, means all of them.

    Raises:
        EngineFailure: A logit is NaN or infinite. Sorting one would return an arbitrary order
            with no sign that anything is wrong.
    """
    assert top_n is None or top_n >= 1
    for index, logit in enumerate(logits):
        if not math.isfinite(logit):
            raise EngineFailure(f"logit of document {index} is {logit}")

    order = sorted(range(len(logits)), key=lambda index: (-logits[index], index))
    return order[:top_n]


def relevance_score(logit: float) -> float:
    """The logistic function in float64: between 0 and 1, never overflowing.

    Two logits that differ in float32 may share a score near 0 or 1; the order is the logits'.
    """
    if logit >= 0:
        return 1 / (1 + math.exp(-logit))
    growth = math.exp(logit)
    return growth / (1 + growth)
