"""The search for the highest load that keeps a server's p99 under a target."""

import math
from collections.abc import Callable, Iterator
from itertools import cycle, islice

from loadtests.limit import Point, limit

GROWTH = 2.0
BRACKET = 1.15
OFFSETS = (1.0, 0.88, 1.12, 0.94, 1.06)
"""Rates of the steps around the limit, relative to it."""


def search(
    measure: Callable[[float], Point],
    first_rate_per_s: float,
    target_ms: float,
    *,
    steps_around: int,
    steps_max: int,
) -> Iterator[Point]:
    """Yield steps that bracket the limit, and then steps around it.

    Args:
        measure: Runs a step with a rate of requests.
        steps_around: Number of steps around the limit, which is estimated again before each step.
        steps_max: Number of steps after which the search for the bracket ends.
    """
    points = []
    for point in bracket(measure, first_rate_per_s, target_ms, steps_max):
        points.append(point)
        yield point
    for offset in islice(cycle(OFFSETS), steps_around):
        if (guess := limit(points, target_ms).documents_per_s) is None:
            return
        documents = sum(point.documents_per_s for point in points)
        rate = guess * sum(point.rate_per_s for point in points) / documents
        points.append(measure(rate * offset))
        yield points[-1]


def bracket(
    measure: Callable[[float], Point], first_rate_per_s: float, target_ms: float, steps_max: int
) -> Iterator[Point]:
    """Yield steps until the limit is between two rates that differ by at most 15 %."""
    kept, missed = 0.0, math.inf
    rate = first_rate_per_s
    for _ in range(steps_max):
        point = measure(rate)
        yield point
        if point.p99_ms <= target_ms:
            kept = rate
        else:
            missed = rate
        if missed <= kept * BRACKET:
            return
        if kept == 0:
            rate = missed / GROWTH
        elif math.isinf(missed):
            rate = kept * GROWTH
        else:
            rate = math.sqrt(kept * missed)
