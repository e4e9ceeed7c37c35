"""Clients that send rerank requests, and what they saw; the same for every server.

A load's figures are those of a window. It opens once every client has been answered, and the load
stays as it is until every request begun in the window has been answered: so nothing is measured
while the clients are fewer than they should be. A request that is only partly inside counts by the
part of its time that is.
"""

import json
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle
from threading import Event
from typing import Any

import httpx
import numpy as np
import psutil

from loadtests.traffic import Traffic

TIMEOUT_S = 300.0
BODIES = 16
"""Prepared requests of each client, sent again and again: no server here remembers scores."""

ALL = "all"
"""The name of a load's only group, or of all its groups together."""

POLL_S = 0.02
OPEN_LOOP_THREADS = 64


@dataclass(frozen=True, slots=True)
class Target:
    """A server's route, and what it wants to hear."""

    url: str
    model: str
    key: str = ""

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}


@dataclass(frozen=True, slots=True)
class Server:
    """A running one: its first process and all that came from it."""

    name: str
    target: Target
    pid: int

    def cpu_s(self) -> float:
        """Used so far."""
        return cpu_s(self._processes())

    def memory_mib(self) -> int:
        """The sum of their proportional shares."""
        return round(sum(_of_each(self._processes(), _memory_mib)))

    def _processes(self) -> list[psutil.Process]:
        first = psutil.Process(self.pid)
        return [first, *first.children(recursive=True)]


def cpu_s(processes: Iterable[psutil.Process]) -> float:
    """That they used so far, together."""
    return sum(_of_each(processes, _cpu_s))


def _of_each(
    processes: Iterable[psutil.Process], question: Callable[[psutil.Process], float]
) -> Iterator[float]:
    for process in processes:
        try:
            yield question(process)
        except psutil.NoSuchProcess:
            continue


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _memory_mib(process: psutil.Process) -> float:
    return float(process.memory_full_info().pss / 2**20)


@dataclass(frozen=True, slots=True)
class Group:
    """Clients that are alike. Each sends when it was answered, after ``think_s``, or every
    ``every_s`` where answers come sooner than that: then the load is the same for every server."""

    name: str
    target: Target
    clients: int
    documents: int
    think_s: float = 0.0
    every_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Answer:
    """One answered request; times are of one clock."""

    group: str
    documents: int
    """That got a score: none where the server ran out of time."""

    began: float
    ended: float


@dataclass(frozen=True, slots=True)
class Observed:
    """All answers to a load, and its window."""

    answers: list[Answer]
    opened: float
    closed: float
    cpu_s: float
    """That the server used in the window."""


@dataclass(frozen=True, slots=True)
class GroupFigures:
    """Of one group in one load."""

    name: str
    clients: int
    documents: int | None
    """Of each request; ``None`` of several groups together."""

    requests: int
    """Begun in the window; the latencies are theirs."""

    late: int
    """Of these, how many got no scores, since the server ran out of time."""

    documents_per_s: float
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


class _Client:
    """One of a group, with a thread and a connection of its own."""

    def __init__(self, group: Group, seed: int, stop: Event) -> None:
        self.answers: list[Answer] = []
        self._group = group
        self._stop = stop
        self._bodies = cycle(bodies(group, seed))
        self._first_s = random.Random(seed).random() * group.every_s

    def run(self) -> None:
        group = self._group
        with httpx.Client(headers=group.target.headers, timeout=TIMEOUT_S) as http:
            self._stop.wait(self._first_s)
            while not self._stop.is_set():
                began = time.perf_counter()
                scored = len(send(http, group, next(self._bodies)))
                ended = time.perf_counter()
                self.answers.append(Answer(group.name, scored, began, ended))
                self._stop.wait(max(0.0, group.think_s, began + group.every_s - ended))

    def answered_after(self, instant: float) -> bool:
        return bool(self.answers) and self.answers[-1].ended > instant


def bodies(group: Group, seed: int) -> list[bytes]:
    """Requests as they go over the wire; the same seed gives the same."""
    traffic = Traffic(seed)
    return [
        json.dumps(
            {"model": group.target.model, "query": each.query, "documents": each.documents}
        ).encode()
        for each in (traffic.request(group.documents) for _ in range(BODIES))
    ]


def send(http: httpx.Client, group: Group, body: bytes) -> list[dict[str, Any]]:
    """The results, which must be all, or none where the server runs out of time. Whoever is told to
    come again does, as SDKs do."""
    content_type = {"Content-Type": "application/json"}
    while True:
        response = http.post(group.target.url, content=body, headers=content_type)
        if response.status_code != 429:
            break
        time.sleep(float(response.headers["Retry-After"]))
    if response.status_code == 504:
        return []
    if response.status_code != 200:
        raise RuntimeError(f"{group.target.url} answers {response.status_code}: {response.text}")
    results: list[dict[str, Any]] = response.json()["results"]
    assert len(results) == group.documents
    return results


def closed_loop(groups: Sequence[Group], seconds: float, cpu_s: Callable[[], float]) -> Observed:
    """A window of ``seconds`` of all ``groups`` at once."""
    stop = Event()
    each_of = [group for group in groups for _ in range(group.clients)]
    clients = [_Client(group, seed, stop) for seed, group in enumerate(each_of)]

    def wait_until_all_answered(since: float) -> None:
        while not all(client.answered_after(since) for client in clients):
            time.sleep(POLL_S)
            if any(thread.done() for thread in running):
                raise RuntimeError("a client has stopped")

    with ThreadPoolExecutor(len(clients)) as threads:
        running = [threads.submit(client.run) for client in clients]
        try:
            wait_until_all_answered(0.0)
            opened, cpu_before = time.perf_counter(), cpu_s()
            time.sleep(seconds)
            closed, cpu_after = time.perf_counter(), cpu_s()
            wait_until_all_answered(closed)
        finally:
            stop.set()
            _raise_theirs(running)
    answers = [answer for client in clients for answer in client.answers]
    return Observed(answers, opened, closed, cpu_after - cpu_before)


def _raise_theirs(running: Iterable[Future[None]]) -> None:
    """What stopped a client says more than that it stopped."""
    for thread in running:
        thread.result()


def open_loop(
    group: Group, requests_per_s: float, seconds: float, cpu_s: Callable[[], float]
) -> Observed:
    """Requests come when they come, answered or not; one that waits for us has begun already."""
    prepared = cycle(bodies(group, seed=0))
    times = arrivals(requests_per_s, seconds, seed=7)
    limits = httpx.Limits(max_connections=OPEN_LOOP_THREADS)
    with (
        httpx.Client(headers=group.target.headers, timeout=TIMEOUT_S, limits=limits) as http,
        ThreadPoolExecutor(OPEN_LOOP_THREADS) as threads,
    ):

        def ask(began: float, body: bytes) -> Answer:
            scored = len(send(http, group, body))
            return Answer(group.name, scored, began, time.perf_counter())

        opened, cpu_before = time.perf_counter(), cpu_s()
        asked = []
        for at in times:
            time.sleep(max(0.0, opened + at - time.perf_counter()))
            asked.append(threads.submit(ask, opened + at, next(prepared)))
        time.sleep(max(0.0, opened + seconds - time.perf_counter()))
        closed, cpu_after = time.perf_counter(), cpu_s()
        answers = [each.result() for each in asked]
    return Observed(answers, opened, closed, cpu_after - cpu_before)


def arrivals(requests_per_s: float, seconds: float, seed: int) -> list[float]:
    """When requests come, in seconds from the start: a Poisson process."""
    source = random.Random(seed)
    times: list[float] = []
    at = 0.0
    while (at := at + source.expovariate(requests_per_s)) < seconds:
        times.append(at)
    return times


def figures(groups: Sequence[Group], observed: Observed) -> list[GroupFigures]:
    """What the clients of each group saw; of several groups, also what they got together."""
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
    """Of the window; a request's documents are spread evenly over its time."""
    documents = 0.0
    for answer in answers:
        inside = min(answer.ended, closed) - max(answer.began, opened)
        documents += answer.documents * max(0.0, inside) / (answer.ended - answer.began)
    return documents / (closed - opened)


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest that at least ``share`` of the values do not exceed; of none there is none."""
    if not values:
        return None
    return round(float(np.quantile(values, share, method="inverted_cdf")), 1)
