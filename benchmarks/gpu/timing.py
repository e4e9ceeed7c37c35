"""Time limits of sections, and rates of repeated work."""

import itertools
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")

WARM_UPS = 4


class OutOfTime(BaseException):
    """A section has used its time. The engine does not catch it, because it is no `Exception`."""


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise `OutOfTime` in the main thread after ``seconds``."""

    def stop(*_: object) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def per_second(
    work: Callable[[T], int], items: Sequence[T], in_flight: int, seconds: float
) -> float:
    """Return how many documents per second ``work`` scores.

    Args:
        work: Scores one item and returns its number of documents.
        items: Used in turns, again and again.
        in_flight: Number of threads that work at the same time.
    """
    for item in items[:WARM_UPS]:
        work(item)
    numbers = itertools.count()
    started = time.perf_counter()

    def run(_: int) -> int:
        documents = 0
        while time.perf_counter() - started < seconds:
            documents += work(items[next(numbers) % len(items)])
        return documents

    with ThreadPoolExecutor(in_flight) as threads:
        documents = sum(threads.map(run, range(in_flight)))
    return documents / (time.perf_counter() - started)


def milliseconds(launch: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Return the time of one of many launches in a row, without waits between them."""
    for _ in range(WARM_UPS):
        launch()
    settle(device)
    launches = 0
    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        for _ in range(10):
            launch()
        settle(device)
        launches += 10
    return 1e3 * (time.perf_counter() - started) / launches


def settle(device: torch.device) -> None:
    """Wait until the device has finished all work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
