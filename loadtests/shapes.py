"""Shapes: how the rate of requests changes during a run.

A shape is a piecewise linear function of the time. Its factor 1 is the rate given by `--rate`, and
its largest factor is the one given by `--peak-factor`.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Points = list[tuple[float, float]]
"""Times as fractions of the run, in order, with the factor at each. Two equal times are a jump."""

STEPS = 5
PERIODS = 4
SPIKE = (0.45, 0.55)
HOURS = 24
LOWEST_HOUR = 4
POINTS_PER_SEGMENT = 200


def _constant(_peak: float) -> Points:
    return [(0.0, 1.0), (1.0, 1.0)]


def _ramp(peak: float) -> Points:
    return [(0.0, 1.0), (1.0, peak)]


def _step(peak: float) -> Points:
    levels = np.linspace(1.0, peak, STEPS)
    return _levels([float(level) for level in levels])


def _spike(peak: float) -> Points:
    first, last = SPIKE
    return [(0.0, 1.0), (first, 1.0), (first, peak), (last, peak), (last, 1.0), (1.0, 1.0)]


def _square(peak: float) -> Points:
    return _levels([1.0, peak] * PERIODS)


def _day(peak: float) -> Points:
    """One day in the duration of the run: the lowest rate at 04:00, the highest at 16:00."""
    return [
        (
            hour / HOURS,
            1 + (peak - 1) * (1 - math.cos(2 * math.pi * (hour - LOWEST_HOUR) / HOURS)) / 2,
        )
        for hour in range(HOURS + 1)
    ]


def _levels(levels: list[float]) -> Points:
    """Return constant parts of equal length."""
    points: Points = []
    for index, level in enumerate(levels):
        points += [(index / len(levels), level), ((index + 1) / len(levels), level)]
    return points


SHAPES: dict[str, Callable[[float], Points]] = {
    "constant": _constant,
    "ramp": _ramp,
    "step": _step,
    "spike": _spike,
    "square": _square,
    "day": _day,
}


class Shape:
    """The factor of the rate over a run of ``duration_s``.

    Args:
        name: One of `SHAPES`.
        peak_factor: The largest factor, at least 1. The shape ``constant`` ignores it.
    """

    def __init__(self, name: str, duration_s: float, peak_factor: float) -> None:
        times: list[float] = []
        factors: list[float] = []
        points = SHAPES[name](peak_factor)
        for (begin, first), (end, last) in itertools.pairwise(points):
            if end > begin:
                times += (np.linspace(begin, end, POINTS_PER_SEGMENT) * duration_s).tolist()
                factors += np.linspace(first, last, POINTS_PER_SEGMENT).tolist()
        self._times = np.array(times)
        widths = np.diff(self._times)
        heights = (np.array(factors[1:]) + np.array(factors[:-1])) / 2
        self._areas = np.concatenate([[0.0], np.cumsum(widths * heights)])

    @property
    def area_s(self) -> float:
        """The integral of the factor over the run; the duration for the shape ``constant``."""
        return float(self._areas[-1])

    def times_of(self, areas_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the times until which the integral of the factor has these values."""
        times: NDArray[Any] = np.interp(areas_s, self._areas, self._times)
        return times
