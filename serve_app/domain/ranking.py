"""Rank documents by logit, and convert logits to relevance scores. Pure functions."""

import math
from collections.abc import Sequence

from serve_app.domain.errors import EngineFailure


def rank(logits: Sequence[float], top_n: int | None) -> list[int]:
    """Return the indices of the ``top_n`` best documents, best first; ties keep request order.

    ``None``, or a ``top_n`` above the number of documents, returns all of them.

    Raises: EngineFailure if a logit is NaN or infinite, which would make the order arbitrary.
    """
    assert top_n is None or top_n >= 1
    for index, logit in enumerate(logits):
        if not math.isfinite(logit):
            raise EngineFailure(f"logit of document {index} is {logit}")

    order = sorted(range(len(logits)), key=lambda index: (-logits[index], index))
    return order[:top_n]


def relevance_score(logit: float) -> float:
    """Return the logistic function of ``logit``, computed in float64 without overflow.

    Different logits may have the same score near 0 or 1, so documents are ranked by logit.
    """
    if logit >= 0:
        return 1 / (1 + math.exp(-logit))
    growth = math.exp(logit)
    return growth / (1 + growth)
