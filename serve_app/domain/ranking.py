"""Rank documents by logit, and convert logits to scores. Pure."""

import math
from collections.abc import Sequence

from serve_app.domain.errors import EngineFailure
from serve_app.domain.model import RankedDocument
from serve_app.domain.tokenized import TokenizedJob


def ranked(
    job: TokenizedJob, logits: Sequence[float], top_n: int | None
) -> tuple[RankedDocument, ...]:
    if not job.windows:
        order = rank(logits, top_n)
        return tuple([RankedDocument(each, logits[each], job.truncated[each]) for each in order])
    order = rank(logits, top_n, [window.document for window in job.windows])
    best = ((each, job.windows[each]) for each in order)
    return tuple(
        RankedDocument(
            window.document, logits[each], job.truncated[each], (window.start, window.end)
        )
        for each, window in best
    )


def rank(
    logits: Sequence[float], top_n: int | None, documents: Sequence[int] | None = None
) -> list[int]:
    """Return the positions of the best pairs of the ``top_n`` best documents, best first.

    Ties keep the order of the pairs. A ``top_n`` of ``None`` returns all. ``documents`` has the
    document of each pair; ``None`` means that each has its own.

    Raises: EngineFailure if a logit is NaN or infinite, which would make the order arbitrary.
    """
    assert top_n is None or top_n >= 1
    if not all(map(math.isfinite, logits)):
        position, logit = next(each for each in enumerate(logits) if not math.isfinite(each[1]))
        raise EngineFailure(f"logit of pair {position} is {logit}")

    # The sort is stable, also in reverse.
    order = sorted(range(len(logits)), key=logits.__getitem__, reverse=True)
    if documents is not None:
        best: dict[int, int] = {}
        for position in order:
            best.setdefault(documents[position], position)
        order = [*best.values()]
    return order[:top_n]


def relevance_score(logit: float) -> float:
    """Return the logistic function of ``logit``, without overflow.

    Different logits near 0 or 1 may share a score, so documents are ranked by logit.
    """
    if logit >= 0:
        return 1 / (1 + math.exp(-logit))
    growth = math.exp(logit)
    return growth / (1 + growth)
