"""The figures of a load, computed from the answers that its clients got."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from testkit.load import ALL, Answer, Group, Observed


@dataclass(frozen=True, slots=True)
class GroupFigures:
    """The figures of one group in one load."""

    name: str
    clients: int
    documents: int | None
    """Documents per request; ``None`` for several groups together."""

    requests: int
    """Number of requests begun in the window. The latencies are those of these requests."""

    late: int
    """Number of these requests without scores, because the server's deadline passed."""

    documents_per_s: float
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


def figures(groups: Sequence[Group], observed: Observed) -> list[GroupFigures]:
    """Return the figures of each group; for several groups, also their total."""
    each = [_figures(group, observed) for group in groups]
    if len(each) == 1:
        return each
    clients, requests = sum(one.clients for one in each), sum(one.requests for one in each)
    late = sum(one.late for one in each)
    speed = round(sum(one.documents_per_s for one in each), 1)
    return [*each, GroupFigures(ALL, clients, None, requests, late, speed, None, None, None)]


def _figures(group: Group, observed: Observed) -> GroupFigures:
    answers = [answer for answer in observed.answers if answer.group == group.name]
    begun = [each for each in answers if observed.opened <= each.began < observed.closed]
    times = [1_000 * (answer.ended - answer.began) for answer in begun]
    return GroupFigures(
        group.name,
        group.clients,
        group.documents,
        len(begun),
        sum(not answer.documents for answer in begun),
        round(documents_per_s(answers, observed.opened, observed.closed), 1),
        *(percentile(times, share) for share in (0.5, 0.95, 0.99)),
    )


def documents_per_s(answers: Iterable[Answer], opened: float, closed: float) -> float:
    """Return the window's documents/s, with each request's documents spread over its duration."""
    documents = 0.0
    for answer in answers:
        inside = min(answer.ended, closed) - max(answer.began, opened)
        documents += answer.documents * max(0.0, inside) / (answer.ended - answer.began)
    return documents / (closed - opened)


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return the smallest value that at least ``share`` of the values do not exceed, if any."""
    if not values:
        return None
    return round(float(np.quantile(values, share, method="inverted_cdf")), 1)
