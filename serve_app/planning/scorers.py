"""Simulated scorers, and the autoscaler that starts and stops them.

The sizes of batches, the measured speed and the number of scorers follow the service's own rules.
"""

from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import simpy

from serve_app.batching.batch_size import IDLE_WAIT_S, BatchSize
from serve_app.batching.throughput import ThroughputMeter
from serve_app.domain.model import PortionScores
from serve_app.domain.units import Instant, Seconds, Tokens
from serve_app.scaling.policy import Bounds, Goals, History, Load, Sample, decide, needed

Steps = Generator[simpy.Event, Any, None]
"""A process of simpy."""

BATCH_TOKENS_MAX = Tokens(32_768)
"""As in cluster/production.yaml."""

REPORT_EVERY_S = 1.0
"""``metrics_interval_s`` in cluster/production.yaml."""


@dataclass(frozen=True, slots=True)
class Autoscaling:
    """How the number of scorers follows the load."""

    bounds: Bounds
    goals: Goals = field(default_factory=Goals)


@dataclass(frozen=True, slots=True, eq=False)
class Sent:
    """A portion for a scorer, and what happens with its scores."""

    tokens: Tokens
    answered: Callable[[PortionScores], None]


class SimulatedScorer:
    """One scorer, which computes one batch at a time."""

    def __init__(
        self, env: simpy.Environment, name: str, tokens_per_s: float, batch_s: Seconds
    ) -> None:
        self._env = env
        self._name = name
        self._tokens_per_s = tokens_per_s
        self._batch_s = batch_s
        self.meter = ThroughputMeter(Instant(env.now))
        self._batch_size = BatchSize(BATCH_TOKENS_MAX, self.meter)
        self._waiting: deque[tuple[float, Sent]] = deque()
        self._woken = env.event()
        self.portions = 0
        """Sent to it and not answered."""

        self.inflight_tokens = 0
        self.busy_s = 0.0
        env.process(self._work())

    def receive(self, sent: Sent) -> None:
        self._waiting.append((self._env.now, sent))
        self.inflight_tokens += sent.tokens
        if not self._woken.triggered:
            self._woken.succeed()

    def _work(self) -> Steps:
        while True:
            if not self._waiting:
                self._woken = self._env.event()
                yield self._woken
                yield self._env.timeout(IDLE_WAIT_S)
            batch = self._next_batch()
            tokens = sum(sent.tokens for _, sent in batch)
            started = self._env.now
            yield self._env.timeout(self._batch_s + tokens / self._tokens_per_s)
            run_s = Seconds(self._env.now - started)
            self.busy_s += run_s
            self.meter.ran(Tokens(tokens), run_s)
            self.inflight_tokens -= tokens
            for arrived, sent in batch:
                sent.answered(
                    PortionScores(
                        logits=(),
                        replica_id=self._name,
                        queue_wait_s=Seconds(started - arrived),
                        run_s=run_s,
                        tokens_per_s=self.meter.tokens_per_s or 0.0,
                    )
                )

    def _next_batch(self) -> list[tuple[float, Sent]]:
        limit = self._batch_size.tokens
        batch = [self._waiting.popleft()]
        tokens = batch[0][1].tokens
        while self._waiting and tokens + self._waiting[0][1].tokens <= limit:
            batch.append(self._waiting.popleft())
            tokens = Tokens(tokens + batch[-1][1].tokens)
        return batch


class Scorers:
    """The scorers of one model."""

    def __init__(
        self,
        env: simpy.Environment,
        start: Callable[[str], SimulatedScorer],
        running: int,
    ) -> None:
        self._env = env
        self._start = start
        self._names = (f"scorer-{number}" for number in count(1))
        self._all: list[SimulatedScorer] = []
        self.running: list[SimulatedScorer] = []
        self.starting = 0
        self.history: list[tuple[float, int]] = []
        """The time and the number of running scorers after each change."""

        for _ in range(running):
            self._add()
        self._note()

    @property
    def busy_s(self) -> float:
        return sum(each.busy_s for each in self._all)

    def become(self, target: int, start_s: Seconds) -> None:
        """A stopped scorer still computes the portions that it has."""
        while len(self.running) + self.starting < target:
            self.starting += 1
            self._env.process(self._start_one(start_s))
        while len(self.running) > target:
            self.running.pop()
            self._note()

    def _start_one(self, start_s: Seconds) -> Steps:
        yield self._env.timeout(start_s)
        self.starting -= 1
        self._add()
        self._note()

    def _add(self) -> None:
        self._all.append(self._start(next(self._names)))
        self.running.append(self._all[-1])

    def _note(self) -> None:
        self.history.append((self._env.now, len(self.running)))


def autoscale(
    env: simpy.Environment,
    scorers: Scorers,
    scaling: Autoscaling,
    start_s: Seconds,
    backlog_tokens: Callable[[], Tokens],
) -> Steps:
    history: History | None = None
    while True:
        yield env.timeout(REPORT_EVERY_S)
        target = len(scorers.running) + scorers.starting
        load = _load(env, scorers, backlog_tokens())
        count_needed = needed(load, target, scaling.goals)
        sample = None if count_needed is None else Sample(Instant(env.now), count_needed)
        decision = decide(sample, target, scaling.bounds, history, scaling.goals)
        history = decision.history
        scorers.become(decision.target, start_s)


def _load(env: simpy.Environment, scorers: Scorers, backlog_tokens: Tokens) -> Load:
    running = scorers.running
    speeds = [speed for each in running if (speed := each.meter.tokens_per_s) is not None]
    now = Instant(env.now)
    return Load(
        waiting_tokens=backlog_tokens,
        inflight_tokens=Tokens(sum(each.inflight_tokens for each in running)),
        tokens_per_s=sum(speeds) / len(speeds) if speeds else None,
        busy_replicas=sum(each.meter.busy_ratio(now) for each in running),
        portions=float(sum(each.portions for each in running)),
    )
