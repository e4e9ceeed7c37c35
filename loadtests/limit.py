"""The limit that the steps of a sweep show, with a confidence interval.

The p99 of a step is random, even at the same rate. Near the limit, its logarithm grows about
linearly with the logarithm of the load. The limit is where the regression line of the steps near it
reaches the target, and the deviations of these steps from the line give the confidence interval.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression
from scipy.stats import linregress, t

NEAR = 1.25
"""The regression uses loads within this factor of a first estimate of the limit."""

RATIO_MAX = 2.0
"""The ratio of the p99 to the target is clipped to this value and its inverse, because a p99 far
from the target says little about the limit."""

POINTS_MIN = 4
CONFIDENCE = 0.95

Floats = NDArray[np.float64]


class Point(NamedTuple):
    """What one step of a sweep showed."""

    rate_per_s: float
    """The intended rate of requests."""

    documents_per_s: float
    """The documents that were due; the rate of random arrivals differs from the intended one."""

    p99_ms: float
    """The 99th percentile of all requests, infinite if more than 1 % were refused or failed."""


@dataclass(frozen=True, slots=True)
class Limit:
    """The highest load that keeps the target, in documents/s."""

    documents_per_s: float | None
    """``None`` if all steps or no steps kept the target."""

    low: float | None = None
    high: float | None = None
    """The confidence interval; ``None`` if too few steps are near the limit, or if the regression
    line does not grow or reaches the target far from the first estimate."""


def limit(points: Sequence[Point], target_ms: float) -> Limit:
    """Return the limit with its 95 % confidence interval."""
    loads = np.log([point.documents_per_s for point in points])
    bound = np.log(RATIO_MAX)
    ratios = np.clip(np.log([point.p99_ms / target_ms for point in points]), -bound, bound)
    if np.all(ratios <= 0) or np.all(ratios > 0):
        return Limit(None)
    first_guess = _crossing(loads, ratios)
    near = np.abs(loads - first_guess) <= np.log(NEAR)
    if near.sum() < POINTS_MIN:
        return Limit(_documents(first_guess))
    line = linregress(loads[near], ratios[near])
    if line.slope <= 0:
        return Limit(_documents(first_guess))
    best = -line.intercept / line.slope
    if abs(best - first_guess) > np.log(NEAR):
        return Limit(_documents(first_guess))
    count = int(near.sum())
    deviation = np.sqrt(
        np.sum((ratios[near] - line.intercept - line.slope * loads[near]) ** 2) / (count - 2)
    )
    spread = np.sum((loads[near] - loads[near].mean()) ** 2)
    error = deviation / line.slope * np.sqrt(1 / count + (best - loads[near].mean()) ** 2 / spread)
    half = error * t.ppf((1 + CONFIDENCE) / 2, count - 2)
    return Limit(*(_documents(value) for value in (best, best - half, best + half)))


def _crossing(loads: Floats, ratios: Floats) -> float:
    """Return where the best-fitting non-decreasing function crosses 0."""
    order = np.argsort(loads, kind="stable")
    fit = isotonic_regression(ratios[order]).x
    first = int(np.argmax(fit > 0))
    if fit[first] <= 0 or first == 0:  # The fit has one sign only.
        return float(loads.mean())
    left, right = loads[order][first - 1], loads[order][first]
    share = -fit[first - 1] / (fit[first] - fit[first - 1])
    return float(left + share * (right - left))


def _documents(log_load: float) -> float:
    return round(float(np.exp(log_load)), 1)
