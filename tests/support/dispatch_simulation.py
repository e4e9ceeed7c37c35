"""Simulated scorers that serve a queue of portions on a virtual clock; runs are reproducible."""

import functools
import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from serve_app.domain.model import ServiceTier
from serve_app.domain.priority import Claim
from serve_app.domain.units import RequestId, TenantId, Tokens

PORTION_TOKENS_MAX = 4_096
TOKENS_PER_S = 4_096
"""Speed of one scorer, which takes one second for a full portion."""


@dataclass(frozen=True, slots=True)
class Item:
    job: RequestId
    index: int
    tokens: Tokens


@dataclass(frozen=True, slots=True)
class Job:
    """A job that arrives and may disconnect later."""

    id: RequestId
    claim: Claim
    portions: tuple[Item, ...]
    arrives_s: float
    disconnects_s: float | None = None

    @property
    def tokens(self) -> int:
        return sum(item.tokens for item in self.portions)


@dataclass(frozen=True, slots=True)
class Run:
    """A portion on a scorer."""

    item: Item
    starts_s: float
    ends_s: float


class Queue(Protocol):
    def __len__(self) -> int: ...

    def add(self, job: RequestId, claim: Claim, portions: Sequence[Item]) -> None: ...

    def take(self) -> Item | None: ...

    def drop(self, job: RequestId) -> list[Item]: ...


class Fifo:
    """First come, first served: the baseline for the fair queue."""

    def __init__(self) -> None:
        self._items: deque[Item] = deque()

    def __len__(self) -> int:
        return len(self._items)

    def add(self, job: RequestId, claim: Claim, portions: Sequence[Item]) -> None:
        self._items.extend(portions)

    def take(self) -> Item | None:
        return self._items.popleft() if self._items else None

    def drop(self, job: RequestId) -> list[Item]:
        dropped = [item for item in self._items if item.job == job]
        self._items = deque(item for item in self._items if item.job != job)
        return dropped


def a_claim(
    tenant: str = "acme", *, weight: int = 1, tier: ServiceTier = ServiceTier.DEFAULT
) -> Claim:
    return Claim(TenantId(tenant), weight, tier)


_numbers = itertools.count()


def make_job(
    claim: Claim, tokens: Sequence[int], arrives_s: float = 0.0, disconnects_s: float | None = None
) -> Job:
    """Return a job with one portion for each of ``tokens``."""
    name = RequestId(f"{claim.tenant}-{next(_numbers)}")
    items = tuple(Item(name, index, Tokens(cost)) for index, cost in enumerate(tokens))
    return Job(name, claim, items, arrives_s, disconnects_s)


def some_sizes(chance: random.Random) -> list[int]:
    """Return sizes like those from `cut`: one of any size, or several that are nearly equal."""
    if chance.random() < 0.5:
        return [chance.randint(20, PORTION_TOKENS_MAX)]
    size = chance.randint(PORTION_TOKENS_MAX // 2, PORTION_TOKENS_MAX)
    return [size - chance.randint(0, 50) for _ in range(chance.randint(2, 12))]


@dataclass
class Simulation:
    """``scorers`` of equal speed; each takes a portion when it has finished its previous one.

    ``answered`` is called with each finished job, and may return another job.
    """

    queue: Queue
    scorers: int = 1
    answered: Callable[[Job, float], Job | None] | None = None
    runs: list[Run] = field(default_factory=list)
    dropped: list[Item] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._free = self.scorers
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._jobs: dict[RequestId, Job] = {}
        self._left: dict[RequestId, int] = {}
        self._now_s = 0.0

    def run(self, jobs: Sequence[Job], until_s: float = float("inf")) -> list[Run]:
        """Serve until nothing is left; after ``until_s`` no portion starts."""
        for job in jobs:
            self._expect(job)
        while self._events:
            self._now_s, _, act = heapq.heappop(self._events)
            act()
            more_now = self._events and self._events[0][0] == self._now_s
            if not more_now and self._now_s <= until_s:
                self._serve()
        return self.runs

    def _later(self, at_s: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (at_s, next(self._order), act))

    def _expect(self, job: Job) -> None:
        self._jobs[job.id], self._left[job.id] = job, len(job.portions)
        self._later(job.arrives_s, lambda: self.queue.add(job.id, job.claim, job.portions))
        if job.disconnects_s is not None:
            self._later(job.disconnects_s, lambda: self.dropped.extend(self.queue.drop(job.id)))

    def _serve(self) -> None:
        while self._free and len(self.queue):
            item = self.queue.take()
            assert item is not None, "something waits, and a scorer is free"
            self._free -= 1
            ends_s = self._now_s + item.tokens / TOKENS_PER_S
            self.runs.append(Run(item, self._now_s, ends_s))
            self._later(ends_s, functools.partial(self._end, item))

    def _end(self, item: Item) -> None:
        self._free += 1
        self._left[item.job] -= 1
        if self._left[item.job] == 0 and self.answered is not None:
            following = self.answered(self._jobs[item.job], self._now_s)
            if following is not None:
                self._expect(following)
