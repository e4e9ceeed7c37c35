"""Clients that send rerank requests, and their measurements; the same for every server.

A load is measured in a window. The window opens once every client has had an answer. The load
continues until every request that began in the window is answered, so all clients are active
throughout the window. A request that is partly inside the window counts in proportion.
"""

import asyncio
import json
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import aiohttp
import psutil

from loadtests.traffic import Traffic

TIMEOUT_S = 300.0
BODIES = 16
"""Prepared requests of each client, sent in rotation. No measured server caches scores."""

ALL = "all"
"""The name of a load's only group, or of the sum of all its groups."""

OPEN_LOOP_CONNECTIONS = 64


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


class _Client:
    """One client of a group, with its own connection."""

    def __init__(self, group: Group, seed: int, stop: asyncio.Event) -> None:
        self.answers: list[Answer] = []
        self._group = group
        self._stop = stop
        self._answered = asyncio.Event()
        self._bodies = cycle(bodies(group, seed))
        self._first_s = random.Random(seed).random() * group.every_s

    async def run(self) -> None:
        group = self._group
        async with session(group.target) as http:
            await self._pause(self._first_s)
            while not self._stop.is_set():
                began = time.perf_counter()
                scored = len(await send(http, group, next(self._bodies)))
                ended = time.perf_counter()
                self.answers.append(Answer(group.name, scored, began, ended))
                self._answered.set()
                await self._pause(max(group.think_s, began + group.every_s - ended))

    async def _pause(self, seconds: float) -> None:
        if seconds > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), seconds)

    async def next_answer(self) -> None:
        self._answered.clear()
        await self._answered.wait()


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


def session(target: Target, connections_max: int = 1) -> aiohttp.ClientSession:
    """Return a client for ``target``.

    aiohttp takes about 0.1 ms of CPU time for a request, and httpx in 32 threads 0.8 ms, which the
    measured service would lack.
    """
    return aiohttp.ClientSession(
        headers=target.headers,
        timeout=aiohttp.ClientTimeout(sock_connect=TIMEOUT_S, sock_read=TIMEOUT_S),
        connector=aiohttp.TCPConnector(limit=connections_max),
    )


async def send(http: aiohttp.ClientSession, group: Group, body: bytes) -> list[dict[str, Any]]:
    """Send a request, again after each 429; return all results, or none if its deadline passed.

    Raises: RuntimeError for any other status.
    """
    content_type = {"Content-Type": "application/json"}
    url = group.target.url
    while True:
        async with http.post(url, data=body, headers=content_type) as response:
            content = await response.read()
        if response.status != 429:
            break
        await asyncio.sleep(float(response.headers["Retry-After"]))
    if response.status == 504:
        return []
    if response.status != 200:
        raise RuntimeError(f"{url} answers {response.status}: {content.decode()}")
    results: list[dict[str, Any]] = json.loads(content)["results"]
    assert len(results) == group.documents
    return results


def send_each(group: Group, requests: Iterable[bytes]) -> list[list[dict[str, Any]]]:
    """Send one request after the other and return their results. Raises: RuntimeError."""

    async def run() -> list[list[dict[str, Any]]]:
        async with session(group.target) as http:
            return [await send(http, group, body) for body in requests]

    return asyncio.run(run())


def closed_loop(groups: Sequence[Group], seconds: float, cpu_s: Callable[[], float]) -> Observed:
    """Run all ``groups`` concurrently; measure a window of ``seconds``.

    Raises: ExceptionGroup with the error of a client, which ends all of them.
    """
    return asyncio.run(_closed_loop(groups, seconds, cpu_s))


async def _closed_loop(
    groups: Sequence[Group], seconds: float, cpu_s: Callable[[], float]
) -> Observed:
    stop = asyncio.Event()
    each_of = [group for group in groups for _ in range(group.clients)]
    clients = [_Client(group, seed, stop) for seed, group in enumerate(each_of)]

    async def next_answers() -> None:
        await asyncio.gather(*[client.next_answer() for client in clients])

    async def measure() -> tuple[float, float, float]:
        await next_answers()
        opened, cpu_before = await _mark(cpu_s)
        await asyncio.sleep(seconds)
        closed, cpu_after = await _mark(cpu_s)
        await next_answers()
        stop.set()
        return opened, closed, cpu_after - cpu_before

    async with asyncio.TaskGroup() as running:
        for client in clients:
            running.create_task(client.run())
        measured = running.create_task(measure())
    return Observed([each for client in clients for each in client.answers], *measured.result())


async def _mark(cpu_s: Callable[[], float]) -> tuple[float, float]:
    """Return the time and the server's CPU time, while the clients go on."""
    return time.perf_counter(), await asyncio.to_thread(cpu_s)


def open_loop(
    group: Group, requests_per_s: float, seconds: float, cpu_s: Callable[[], float]
) -> Observed:
    """Send requests at fixed times, answered or not; latency includes waiting for a connection.

    Raises: ExceptionGroup with the error of a request.
    """
    times = arrivals(requests_per_s, seconds, seed=7)
    return asyncio.run(_open_loop(group, times, seconds, cpu_s))


async def _open_loop(
    group: Group, times: Iterable[float], seconds: float, cpu_s: Callable[[], float]
) -> Observed:
    prepared = cycle(bodies(group, seed=0))
    async with session(group.target, OPEN_LOOP_CONNECTIONS) as http, asyncio.TaskGroup() as running:

        async def ask(began: float, body: bytes) -> Answer:
            scored = len(await send(http, group, body))
            return Answer(group.name, scored, began, time.perf_counter())

        opened, cpu_before = await _mark(cpu_s)
        asked = []
        for at in times:
            await asyncio.sleep(max(0.0, opened + at - time.perf_counter()))
            asked.append(running.create_task(ask(opened + at, next(prepared))))
        await asyncio.sleep(max(0.0, opened + seconds - time.perf_counter()))
        closed, cpu_after = await _mark(cpu_s)
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
