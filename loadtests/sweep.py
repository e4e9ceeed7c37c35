"""A sweep: a series of runs with different rates, which finds the limit of a service."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from loadtests.command import Interrupted, LoadTestFailed, measure
from loadtests.limit import Point, limit
from loadtests.saturation import saturated
from loadtests.search import search
from loadtests.service_metrics import MetricsWatch, Sample, stage_ms

VERSION = 1


@dataclass(frozen=True, slots=True)
class SweepOptions:
    """What a sweep looks for, and how."""

    target_p99_ms: float
    first_rate_per_s: float
    step_s: int
    """Duration of a step with its warm-up."""

    warm_up_s: float
    steps_around: int
    """Number of steps around the limit, which the confidence interval needs."""

    steps_max: int
    """Maximum number of steps before those around the limit."""

    cost_per_hour: float
    """Dollars per hour of everything but the scorers."""

    scorer_cost_per_hour: float

    def __post_init__(self) -> None:
        """Raises: ValueError: A value is out of its range."""
        for is_valid, problem in (
            (self.first_rate_per_s > 0, "the rate of the first step must be positive"),
            (0 <= self.warm_up_s < self.step_s, "the warm-up must be shorter than the step"),
            (self.steps_around >= 0, "the number of steps cannot be negative"),
            (self.steps_max >= 2, "a sweep has at least two steps"),
        ):
            if not is_valid:
                raise ValueError(problem)


class Sweep:
    """The steps of a sweep.

    Args:
        options: What to look for.
        arguments: Further options of every run, such as its host and its sizes.
        folder: Where the files of the steps go.
        watch: The metrics of the service; without their address, there are no samples.
        show: Called with each step when it ends.
    """

    def __init__(
        self,
        options: SweepOptions,
        arguments: Sequence[str],
        folder: Path,
        watch: MetricsWatch,
        show: Callable[[dict[str, Any]], None],
    ) -> None:
        self._options = options
        self._arguments = arguments
        self._folder = folder
        self._watch = watch
        self._show = show
        self._steps: list[dict[str, Any]] = []
        self._points: list[Point] = []

    def run(self) -> dict[str, Any]:
        """Run all steps and return the result; after Ctrl-C, the result of the complete steps.

        Raises: LoadTestFailed: A step gave no result.
        """
        options = self._options
        points = search(
            self._measure,
            options.first_rate_per_s,
            options.target_p99_ms,
            steps_around=options.steps_around,
            steps_max=options.steps_max,
        )
        try:
            for point in points:
                self._points.append(point)
                self._show(self._steps[-1])
        except Interrupted:
            if not self._points:
                raise
        part, observation = saturated(self._steps)
        return {
            "version": VERSION,
            "options": asdict(options),
            "arguments": list(self._arguments),
            "limit": asdict(limit(self._points, options.target_p99_ms)),
            "saturates_first": part,
            "because": observation,
            "steps": self._steps,
            "samples": self._watch.as_json(),
        }

    def _measure(self, rate_per_s: float) -> Point:
        """Run one step, and repeat it once if the load generator was late, perhaps by chance."""
        summary = self._run(rate_per_s)
        if summary["generator"]["is_bottleneck"]:
            summary = self._run(rate_per_s)
        self._steps.append(self._step(rate_per_s, summary))
        total = summary["total"]
        p99_ms = math.inf if total["p99_ms"] is None else total["p99_ms"]
        return Point(rate_per_s, total["documents_per_s"], p99_ms)

    def _run(self, rate_per_s: float) -> dict[str, Any]:
        options, number = self._options, len(self._steps) + 1
        summary = measure(
            [
                *self._arguments,
                *("--rate", f"{rate_per_s:.6g}", "--seed", str(number)),
                *("--run-time", f"{options.step_s}s", "--warm-up-s", f"{options.warm_up_s:g}"),
            ],
            self._folder,
            f"step-{number:02}",
        )
        if summary["generator"]["lost_processes"]:
            raise Interrupted("The step did not end.")
        _check(summary)
        return summary

    def _step(self, rate_per_s: float, summary: dict[str, Any]) -> dict[str, Any]:
        options = self._options
        total = summary["total"]
        begin = datetime.fromisoformat(summary["started_at"]).timestamp()
        samples = self._watch.between(begin + options.warm_up_s, begin + options.step_s)
        p99_ms = total["p99_ms"]
        return {
            "rate_per_s": rate_per_s,
            "is_kept": p99_ms is not None and p99_ms <= options.target_p99_ms,
            "scorers": _mean([sample.scorers for sample in samples]),
            "queued_tokens": _mean([sample.queued_tokens for sample in samples]),
            "stage_ms": stage_ms(samples),
            "cost_per_1000_documents": self._cost(samples, total["goodput_documents_per_s"]),
            "summary": summary,
        }

    def _cost(self, samples: Sequence[Sample], documents_per_s: float) -> float | None:
        """Return dollars per 1,000 answered documents, if the costs are known."""
        scorers = _mean([sample.scorers for sample in samples])
        options = self._options
        if options.scorer_cost_per_hour and scorers is None:
            return None
        per_hour = options.cost_per_hour + options.scorer_cost_per_hour * (scorers or 0.0)
        if not per_hour or not documents_per_s:
            return None
        return per_hour / 3_600 / documents_per_s * 1_000


def _check(summary: dict[str, Any]) -> None:
    """Raises: LoadTestFailed: The step says nothing about the load that the service can handle."""
    total = summary["total"]
    if not total["requests"]:
        raise LoadTestFailed("A step had no request: use longer steps, or a higher first rate.")
    if total["error_ratio"] == 1:
        problem = next(iter(summary["problems"]), "unknown")
        raise LoadTestFailed(f"All requests of a step failed, most of them with: {problem}")


def _mean(values: Sequence[float]) -> float | None:
    return round(sum(values) / len(values), 3) if values else None
