"""How long do requests wait while a service scales, and what do its replicas cost? Simulated.

    python -m benchmarks.autoscaling.simulated --json benchmarks/results/autoscaling.json \\
        --plot benchmarks/results/autoscaling.png

One model's requests arrive by a seeded trace: low load, a step to the work of four replicas for
five minutes, low load, and bursts of ten seconds; all of it twice. All replicas have the same
speed, take a while to start, and serve the oldest request first. Four policies run on the trace:
ours (`serve_app.scaling.policy`), ours with a shorter memory, Ray Serve's default, and Ray's with
settings as eager as ours. The last two use Ray's own functions. The clock is virtual, so a run
takes seconds and is exactly reproducible. Delays stand in for the late metrics and the control loop
of a real controller; `benchmarks.autoscaling.lab` uses a real one.
"""

import argparse
import json
import math
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import matplotlib as mpl
from ray.serve._private.common import DeploymentID
from ray.serve.autoscaling_policy import (
    _apply_delay_logic,
    _apply_scaling_factors,
    replica_queue_length_autoscaling_policy,
)
from ray.serve.config import AutoscalingConfig, AutoscalingContext
from rich.console import Console
from rich.table import Table

from serve_app.domain.units import Instant, Seconds, Tokens
from serve_app.scaling.policy import DOWN_AFTER_S, Bounds, Goals, Load, Sample, decide, needed

mpl.use("Agg")
from matplotlib import pyplot as plt

TICK_S = 0.1
"""Interval at which Ray's controller calls a policy."""

REPORT_S = 1.0
"""Age of the metrics that a policy gets, as `metrics_interval_s` in production.yaml."""

START_S = 10.0
"""Time from the decision to start a replica to its first batch."""

TOKENS_PER_S = 10_000.0
REQUEST_TOKENS = 3_350  # 50 documents of 67 tokens
DELAY_S = Seconds(1)
BOUNDS = Bounds(1, 8)
QUIET, STEP, BURST = 0.4, 4.0, 6.0
"""Arriving work, in replicas that it keeps busy."""

PHASES = (
    (300, QUIET),
    (300, STEP),
    (900, QUIET),
    (10, BURST),
    (290, QUIET),
    (10, BURST),
    (290, QUIET),
)


@dataclass(frozen=True, slots=True)
class Seen:
    """The input of a policy."""

    at: float
    waiting: int
    """Queued and running requests."""

    running: int
    """Replicas that serve requests."""

    target: int
    busy: float
    """Mean number of busy replicas over the last `REPORT_S`."""


Policy = Callable[[Seen], int]


@dataclass(slots=True)
class Run:
    """The result of one policy on the trace."""

    policy: str
    requests: int
    share_late: float
    """Share of requests that were answered later than the target delay."""

    delay_p50_s: float
    delay_p99_s: float
    seconds_late: float
    """Time during which the oldest request had waited longer than the target delay."""

    replica_seconds: float
    reversals: int
    """Number of times that the target changed direction."""

    targets: list[int] = field(repr=False)
    """The target in each second."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Autoscaling policies on one simulated trace.")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    parser.add_argument("--plot", type=Path, help="plot replicas over time to this file")
    chosen = parser.parse_args()
    arrivals = trace(seed=7)
    runs = [simulate(name, make(), arrivals) for name, make in POLICIES.items()]
    show(runs)
    if chosen.json is not None:
        chosen.json.write_text(json.dumps([asdict(run) for run in runs]) + "\n", encoding="utf-8")
    if chosen.plot is not None:
        plot(runs, chosen.plot)


def trace(seed: int) -> list[float]:
    """Return arrival times: a Poisson process with the rates of `PHASES`, twice."""
    random = Random(seed)
    times: list[float] = []
    start = 0.0
    for length_s, replicas in PHASES * 2:
        rate = replicas * TOKENS_PER_S / REQUEST_TOKENS
        at = start
        while (at := at + random.expovariate(rate)) < start + length_s:
            times.append(at)
        start += length_s
    return times


class Backlog:
    """Our policy, called as in `serve_app.deployments.autoscaling`."""

    def __init__(self, down_after_s: Seconds = DOWN_AFTER_S) -> None:
        self._goals = Goals(delay_s=DELAY_S, down_after_s=down_after_s)
        self._history: Any = None

    def __call__(self, seen: Seen) -> int:
        tokens = Tokens(seen.waiting * REQUEST_TOKENS)
        load = Load(tokens, Tokens(0), TOKENS_PER_S, seen.busy, float(seen.waiting))
        count = needed(load, seen.target, self._goals)
        sample = None if count is None else Sample(Instant(seen.at), count)
        decision = decide(sample, seen.target, BOUNDS, self._history, self._goals)
        self._history = decision.history
        return decision.target


class RayDefault:
    """Ray's policy, on the mean number of ongoing requests over its look-back period."""

    def __init__(self, **settings: float) -> None:
        self._config = AutoscalingConfig(
            min_replicas=BOUNDS.least, max_replicas=BOUNDS.most, **settings
        )
        self._ongoing: deque[int] = deque(maxlen=round(self._config.look_back_period_s / TICK_S))
        self._state: dict[str, Any] = {}

    def __call__(self, seen: Seen) -> int:
        self._ongoing.append(seen.waiting)
        mean = sum(self._ongoing) / len(self._ongoing)
        wanted, _ = replica_queue_length_autoscaling_policy(self._context(seen, mean))
        scaled = _apply_scaling_factors(wanted, seen.running, self._config)
        bounded = min(BOUNDS.most, max(BOUNDS.least, scaled))
        target, self._state = _apply_delay_logic(
            bounded, seen.target, self._config, self._state, _now=seen.at
        )
        return int(target)

    def _context(self, seen: Seen, ongoing: float) -> AutoscalingContext:
        return AutoscalingContext(
            deployment_id=DeploymentID("scorer", "rerank"),
            deployment_name="scorer",
            app_name="rerank",
            current_num_replicas=seen.running,
            target_num_replicas=seen.target,
            running_replicas=[],
            total_num_requests=ongoing,
            total_queued_requests=0,
            aggregated_metrics={},
            raw_metrics={},
            capacity_adjusted_min_replicas=BOUNDS.least,
            capacity_adjusted_max_replicas=BOUNDS.most,
            policy_state=self._state,
            last_scale_up_time=None,
            last_scale_down_time=None,
            current_time=seen.at,
            config=self._config,
        )


POLICIES: dict[str, Callable[[], Policy]] = {
    "backlog": Backlog,
    "backlog, down after 60 s": lambda: Backlog(Seconds(60)),
    "Ray's default": RayDefault,
    "Ray's, eager": lambda: RayDefault(
        upscale_delay_s=1, downscale_delay_s=300, look_back_period_s=2, metrics_interval_s=1
    ),
}


class Replicas:
    """Running and starting replicas."""

    def __init__(self) -> None:
        self.running = BOUNDS.least
        self._starting: list[float] = []
        """The time at which each becomes ready."""

    @property
    def count(self) -> int:
        return self.running + len(self._starting)

    def become(self, target: int, at: float) -> None:
        while self.count < target:
            self._starting.append(at + START_S)
        while self.count > target and self._starting:
            self._starting.pop()
        self.running = min(self.running, target)

    def start(self, at: float) -> None:
        ready = [each for each in self._starting if each <= at]
        self._starting = [each for each in self._starting if each > at]
        self.running += len(ready)


def simulate(name: str, policy: Policy, arrivals: list[float]) -> Run:
    replicas, coming = Replicas(), deque(arrivals)
    queue: deque[float] = deque()
    left = float(REQUEST_TOKENS)  # The oldest request's remaining tokens.
    delays: list[float] = []
    busy: deque[float] = deque([0.0], maxlen=round(REPORT_S / TICK_S))
    reports: deque[tuple[int, float]] = deque(maxlen=round(REPORT_S / TICK_S))
    target, targets, ticks_late, replica_ticks = BOUNDS.least, [], 0, 0
    end_s = 2 * sum(length for length, _ in PHASES)
    for tick in range(round(end_s / TICK_S)):
        now = tick * TICK_S
        replicas.start(now)
        while coming and coming[0] <= now:
            queue.append(coming.popleft())
        capacity = budget = replicas.running * TOKENS_PER_S * TICK_S
        while queue and budget > 0:
            done = min(left, budget)
            budget, left = budget - done, left - done
            if left <= 0:
                delays.append(now + TICK_S - queue.popleft())
                left = float(REQUEST_TOKENS)
        busy.append((capacity - budget) / (TOKENS_PER_S * TICK_S))
        reports.append((len(queue), sum(busy) / len(busy)))
        waiting, worked = reports[0]  # The policy gets old metrics.
        target = policy(Seen(now, waiting, replicas.running, target, worked))
        replicas.become(target, now)
        replica_ticks += replicas.count
        ticks_late += bool(queue and now - queue[0] > DELAY_S)
        if tick % round(1 / TICK_S) == 0:
            targets.append(target)
    delays.sort()
    return Run(
        policy=name,
        requests=len(delays),
        share_late=round(sum(delay > DELAY_S for delay in delays) / len(delays), 4),
        delay_p50_s=round(delays[len(delays) // 2], 2),
        delay_p99_s=round(delays[math.ceil(0.99 * len(delays)) - 1], 2),
        seconds_late=round(ticks_late * TICK_S, 1),
        replica_seconds=round(replica_ticks * TICK_S),
        reversals=reversals(targets),
        targets=targets,
    )


def reversals(targets: list[int]) -> int:
    """Return how often the target changed direction."""
    steps = [new - old for old, new in pairwise(targets) if new != old]
    return sum(one * other < 0 for one, other in pairwise(steps))


def show(runs: list[Run]) -> None:
    table = Table("policy", "late", "p50 s", "p99 s", "s late", "replica s", "reversals")
    for run in runs:
        table.add_row(
            run.policy,
            f"{run.share_late:.1%}",
            f"{run.delay_p50_s:.2f}",
            f"{run.delay_p99_s:.2f}",
            f"{run.seconds_late:.0f}",
            f"{run.replica_seconds:,.0f}",
            str(run.reversals),
        )
    Console().print(table)


def plot(runs: list[Run], picture: Path) -> None:
    """Plot the arriving work, in replicas, and each policy's target."""
    figure, axes = plt.subplots(len(runs), sharex=True, sharey=True, figsize=(9, 8))
    work = [replicas for length, replicas in PHASES * 2 for _ in range(length)]
    for axis, run in zip(axes, runs, strict=True):
        axis.fill_between(range(len(work)), work, step="post", alpha=0.3, label="work")
        axis.step(range(len(run.targets)), run.targets, where="post", label=run.policy)
        axis.set_ylabel("replicas")
        axis.legend(loc="upper right")
    axes[-1].set_xlabel("seconds")
    figure.tight_layout()
    figure.savefig(picture)
    plt.close(figure)


if __name__ == "__main__":
    main()
