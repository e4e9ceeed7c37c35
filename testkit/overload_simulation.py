"""Simulate one overloaded replica behind deadline admission and the fair queue, on a virtual clock.

Jobs of one tenant arrive at random times, all with the same timeout. The replica runs one portion
at a time. A job that misses its deadline is dropped, and what was computed for it is lost. Runs are
reproducible.
"""

import heapq
import random
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from serve_app.admission.deadline import AdmittedJob, DeadlineAdmission
from serve_app.dispatch.fair_queue import FairQueue
from serve_app.domain.errors import Overloaded
from serve_app.domain.model import ServiceTier
from serve_app.domain.priority import Claim
from serve_app.domain.units import Instant, Moment, RequestId, Seconds, TenantId, Tokens

TOKENS_PER_S = 10_000.0
TIMEOUT_S = Seconds(30)
RUN_S = Seconds(0.1)
PORTION_TOKENS = 1_000
CLAIM = Claim(TenantId("acme"), 1, ServiceTier.DEFAULT)


class VirtualClock:
    """A clock that the simulation sets."""

    now_s = 1_000.0

    def instant(self) -> Instant:
        return Instant(self.now_s)

    def moment(self) -> Moment:
        return Moment(round(self.now_s * 1_000))


@dataclass(frozen=True, slots=True)
class Result:
    """What became of the jobs and of the replica's time."""

    done: float
    """Share of the capacity that was used for answered jobs."""

    lost: float
    """Share of the capacity that was used for jobs that missed their deadline."""

    refused: int
    late: int
    wait_s_p50: float
    """Time from arrival to answer, of answered jobs."""

    wait_s_p99: float


@dataclass(frozen=True, slots=True)
class _Portion:
    job: RequestId
    tokens: Tokens


@dataclass(slots=True)
class _Job:
    admitted: AdmittedJob
    place: ExitStack
    arrived_s: float
    tokens: int
    left: int


class Overload:
    """Jobs of random ``sizes`` (in tokens) arrive at ``load`` times the capacity of one replica."""

    def __init__(self, sizes: Sequence[int], load: float, until_s: float) -> None:
        self._clock = VirtualClock()
        self._sizes = sizes
        self._jobs_per_s = load * TOKENS_PER_S / (sum(sizes) / len(sizes))
        self._random = random.Random(7)
        self._admission = DeadlineAdmission(self._clock)
        self._queue: FairQueue[_Portion] = FairQueue()
        self._comes_at = self._start = self._clock.now_s
        self._until = self._start + until_s
        self._refused = self._late = self._done_tokens = self._lost_tokens = self._number = 0
        self._jobs: dict[RequestId, _Job] = {}
        self._deadlines: list[tuple[float, RequestId]] = []
        self._waits_s: list[float] = []

    def run(self) -> Result:
        clock = self._clock
        while self._comes_at < self._until or len(self._queue):
            while self._comes_at < self._until and (
                self._comes_at <= clock.now_s or not len(self._queue)
            ):
                self._arrive()
            self._expire()
            portion = self._queue.take()
            if portion is not None:
                self._score(portion)
        capacity = TOKENS_PER_S * (clock.now_s - self._start)
        waits_s = sorted(self._waits_s)
        return Result(
            self._done_tokens / capacity,
            self._lost_tokens / capacity,
            self._refused,
            self._late,
            waits_s[len(waits_s) // 2],
            waits_s[int(0.99 * len(waits_s))],
        )

    def _arrive(self) -> None:
        now_s = self._clock.now_s = max(self._clock.now_s, self._comes_at)
        self._comes_at += self._random.expovariate(self._jobs_per_s)
        tokens, place = self._random.choice(self._sizes), ExitStack()
        try:
            admitted = place.enter_context(self._admission.hold(CLAIM, Tokens(tokens), TIMEOUT_S))
        except Overloaded:
            self._refused += 1
            return
        self._number += 1
        name = RequestId(f"r{self._number}")
        self._jobs[name] = _Job(admitted, place, now_s, tokens, tokens)
        heapq.heappush(self._deadlines, (now_s + TIMEOUT_S, name))
        sizes = [min(PORTION_TOKENS, tokens - at) for at in range(0, tokens, PORTION_TOKENS)]
        self._queue.add(name, CLAIM, [_Portion(name, Tokens(size)) for size in sizes])

    def _expire(self) -> None:
        while self._deadlines and self._deadlines[0][0] <= self._clock.now_s:
            _, name = heapq.heappop(self._deadlines)
            if name in self._jobs:
                self._queue.drop(name)
                job = self._jobs.pop(name)
                job.place.close()
                self._lost_tokens += job.tokens - job.left
                self._late += 1

    def _score(self, portion: _Portion) -> None:
        self._clock.now_s += portion.tokens / TOKENS_PER_S
        job = self._jobs[portion.job]
        self._admission.scored(job.admitted, portion.tokens, RUN_S)
        job.left -= portion.tokens
        if job.left == 0:
            del self._jobs[portion.job]
            job.place.close()
            self._done_tokens += job.tokens
            self._waits_s.append(self._clock.now_s - job.arrived_s)
