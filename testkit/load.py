"""Clients that send rerank requests, and their measurements; the same for every server.

A load is measured in a window. The window opens once every client has had an answer. The load
continues until every request that began in the window is answered, so all clients are active
throughout the window. A request that is partly inside the window counts in proportion.
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
"""Prepared requests of each client, sent in rotation. No measured server caches scores."""

ALL = "all"
"""The name of a load's only group, or of the sum of all its groups."""

POLL_S = 0.02
OPEN_LOOP_THREADS = 64


@dataclass(frozen=True, slots=True)
class Target:
    """A server's route, model name and API key."""

    url: str
    model: str
    key: str = ""

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: its first process and all descendants."""

    name: str
    target: Target
    pid: int

    def cpu_s(self) -> float:
        return cpu_s(self._processes())

    def memory_mib(self) -> int:
        """Return the sum of the processes' proportional set sizes."""
        return round(sum(_of_each(self._processes(), _memory_mib)))

    def _processes(self) -> list[psutil.Process]:
        first = psutil.Process(self.pid)
        return [first, *first.children(recursive=True)]


def cpu_s(processes: Iterable[psutil.Process]) -> float:
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
    """Clients of one kind. Each sends ``think_s`` after its last answer, but at most once per
    ``every_s``. Where answers take less than ``every_s``, the load is the same for every server."""

    name: str
    target: Target
    clients: int
    documents: int
    think_s: float = 0.0
    every_s: float = 0.0
    repeats: int = 1
    """How often each document repeats its text, for longer documents."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answered request; all times are from the same clock."""

    group: str
    documents: int
    """Number of scored documents; 0 if the server's deadline passed."""

    began: float
    ended: float


@dataclass(frozen=True, slots=True)
class Observed:
    """All answers to a load, and its measurement window."""

    answers: list[Answer]
    opened: float
    closed: float
    cpu_s: float
    """CPU time that the server used in the window."""


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


class _Client:
    """One client of a group, with its own thread and connection."""

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
    """Return serialized requests; the same seed gives the same requests."""
    traffic = Traffic(seed)
    return [
        json.dumps(
            {
                "model": group.target.model,
                "query": each.query,
                "documents": [document * group.repeats for document in each.documents],
            }
        ).encode()
        for each in (traffic.request(group.documents) for _ in range(BODIES))
    ]


def send(http: httpx.Client, group: Group, body: bytes) -> list[dict[str, Any]]:
    """Send a request, again after each 429; return all results, or none if its deadline passed."""
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
    """Run all ``groups`` concurrently; measure a window of ``seconds``."""
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
    """Raise the error that stopped a client, which says more than that it stopped."""
    for thread in running:
        thread.result()


def open_loop(
    group: Group, requests_per_s: float, seconds: float, cpu_s: Callable[[], float]
) -> Observed:
    """Send requests at fixed times, answered or not; latency includes waiting for a thread."""
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
    """Return arrival times of a Poisson process, in seconds from the start."""
    source = random.Random(seed)
    times: list[float] = []
    at = 0.0
    while (at := at + source.expovariate(requests_per_s)) < seconds:
        times.append(at)
    return times


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
