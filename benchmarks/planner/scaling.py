"""Measure how long an autoscaled scorer takes to start, and wait until only one is left."""

import time
from collections.abc import Iterator
from threading import Event, Thread

from benchmarks.planner.cases import Case
from benchmarks.planner.sending import send
from benchmarks.planner.services import GOALS, Running
from serve_app.planning.arrivals import Arrival
from serve_app.planning.scorers import REPORT_EVERY_S
from testkit.service import wait_for

PROBE_S = 12.0
PROBE_DOCUMENTS = 50
PROBE_LOAD = 2.5
"""Load of the probe, as a number of fully used scorers."""

DOWN_TIMEOUT_S = 60.0


def start_s(case: Case, running: Running) -> float:
    """Return the time from the decision to start a scorer until it is warm."""
    tokens = PROBE_DOCUMENTS * 67
    every_s = tokens / (PROBE_LOAD * case.gpu_tokens_per_s)
    lengths = (67,) * PROBE_DOCUMENTS
    requests = [Arrival(number * every_s, lengths) for number in range(round(PROBE_S / every_s))]
    before, began = warm_scorers(running), time.monotonic()
    started: list[float] = []
    stop = Event()

    def watch() -> None:
        while not stop.wait(0.2):
            if warm_scorers(running) > before:
                started.append(time.monotonic() - began)
                return

    watching = Thread(target=watch)
    watching.start()
    send(running.address, running.key, requests, seed=50)
    stop.set()
    watching.join()
    assert started, "the probe started no scorer"
    return max(0.0, started[0] - GOALS["up_after_s"] - REPORT_EVERY_S)


def warm_scorers(running: Running) -> int:
    """Return how many scorers have ever been warm."""
    return sum("scorer_warm" in text for text in _logs(running))


def wait_for_one(running: Running) -> None:
    """Wait until all scorers but one have stopped."""
    wait_for(lambda: len(running.replicas("embedded")) == 1, DOWN_TIMEOUT_S, "the scale-down")
    time.sleep(1)


def _logs(running: Running) -> Iterator[str]:
    hosts = running.lab.folder / "hosts"
    for path in hosts.glob("*/tmp/ray/session_2*/logs/serve/replica_embedded_*.log"):
        yield path.read_text(errors="replace")
