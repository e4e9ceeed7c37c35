"""Send a changing load to the lab, and watch its scorers. `benchmarks.autoscaling.lab` starts it.

    python -m benchmarks.autoscaling.lab_load FOLDER [SECTION ...]

Requests are sent at fixed times, answered or not. The result is JSON on the standard output.
"""

import json
import math
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

import httpx

from cluster.lab.lab import Lab
from cluster.lab.namespaces import LabError
from loadtests.traffic import Traffic

MODEL = "ms-marco-MiniLM-L12-v2"
GPU_TOKENS_PER_S = 8_000
DOCUMENTS = 20
THREADS = 256
TIMEOUT_S = 60.0
WATCH_EVERY_S = 1.0
TICK_S = 0.01

LITTLE, MUCH, TOO_MUCH = 0.3, 3.0, 6.0
"""Loads, in GPUs."""

FLOOR = "floor of 3"
FROM_ZERO = "from zero"
NO_ROOM = "no room"


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the load."""

    name: str
    starts_s: float
    seconds: float
    gpus: Callable[[float], float]
    """Load at a time since the section's start, in GPUs."""


def sections(names: Collection[str] = ()) -> Iterator[Section]:
    """Yield the sections with these names, or all."""
    starts_s = 0.0
    for name, seconds, gpus in (
        ("little", 15, lambda _: LITTLE),
        ("step", 45, lambda _: MUCH),
        ("little again", 45, lambda _: LITTLE),
        ("square wave", 90, lambda at: MUCH if at % 30 >= 15 else LITTLE),
        ("day", 120, lambda at: MUCH * math.sin(math.pi * at / 120) ** 2),
        ("nothing", 60, lambda _: 0.0),
        (FROM_ZERO, 30, lambda _: LITTLE),
        (FLOOR, 40, lambda _: LITTLE),
        (NO_ROOM, 90, lambda _: TOO_MUCH),
    ):
        if not names or name in names:
            yield Section(name, starts_s, seconds, gpus)
            starts_s += seconds


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome of one request."""

    section: str
    status: int
    seconds: float
    retry_after_s: str | None


@dataclass(frozen=True, slots=True)
class Sample:
    """The scorers at one time."""

    at_s: float
    load_gpus: float
    running: int
    starting: int


@dataclass(frozen=True, slots=True)
class Shape:
    """The load over time."""

    sections: Sequence[Section]

    def section_at(self, seconds: float) -> Section | None:
        return next(
            (each for each in self.sections if 0 <= seconds - each.starts_s < each.seconds), None
        )

    def load_at(self, seconds: float) -> float:
        section = self.section_at(seconds)
        return 0.0 if section is None else section.gpus(seconds - section.starts_s)


class Clients:
    """Sends requests through all HAProxies in turn."""

    def __init__(self, shape: Shape, urls: Sequence[str], key: str) -> None:
        self._shape = shape
        self.answers: list[Answer] = []
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=32)
        headers = {"Authorization": f"Bearer {key}"}
        self._clients = [
            httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT_S, limits=limits)
            for url in urls
        ]
        request = Traffic(1).request(DOCUMENTS)
        self._body = {"model": MODEL, "query": request.query, "documents": request.documents}

    def tokens(self) -> int:
        """Return the tokens of one request."""
        answer = self._clients[0].post("/v1/rerank", json=self._body).raise_for_status()
        return int(answer.json()["meta"]["tokens"]["input_tokens"])

    def run(self, began_s: float) -> None:
        """Send the whole load."""
        per_gpu = GPU_TOKENS_PER_S / self.tokens()
        numbers, last, due = count(), 0.0, 0.0
        with ThreadPoolExecutor(THREADS) as threads:
            while section := self._shape.section_at(now := time.monotonic() - began_s):
                due += per_gpu * section.gpus(now - section.starts_s) * (now - last)
                last = now
                while due >= 1:
                    due -= 1
                    threads.submit(self._send, next(numbers), section.name)
                time.sleep(TICK_S)

    def _send(self, number: int, section: str) -> None:
        client = self._clients[number % len(self._clients)]
        began = time.monotonic()
        try:
            answer = client.post("/v1/rerank", json=self._body)
            status, retry_after_s = answer.status_code, answer.headers.get("retry-after")
        except httpx.TransportError:
            status, retry_after_s = 0, None
        self.answers.append(Answer(section, status, time.monotonic() - began, retry_after_s))


def watch(
    lab: Lab, shape: Shape, began_s: float, stop: threading.Event, samples: list[Sample]
) -> None:
    while not stop.wait(WATCH_EVERY_S):
        try:
            replicas = lab.service_state()["replicas"]
        except LabError:
            continue
        states = Counter(each["state"] for each in replicas if each["deployment"] == "scorer")
        now = time.monotonic() - began_s
        load = round(shape.load_at(now), 2)
        samples.append(Sample(round(now, 1), load, states["RUNNING"], states["STARTING"]))


def summary(
    section: Section, answers: Sequence[Answer], samples: Sequence[Sample]
) -> dict[str, Any]:
    of_section = [each for each in answers if each.section == section.name]
    took = sorted(each.seconds for each in of_section if each.status == httpx.codes.OK)
    waits = sorted(int(each.retry_after_s) for each in of_section if each.retry_after_s)
    ends_s = section.starts_s + section.seconds
    running = [each.running for each in samples if section.starts_s <= each.at_s < ends_s]
    changes = [each for i, each in enumerate(running) if not i or running[i - 1] != each]
    return {
        "name": section.name,
        "starts_s": section.starts_s,
        "scorers": " ".join(map(str, changes)),
        "answers": dict(Counter(each.status for each in of_section)),
        "p50_s": round(took[len(took) // 2], 2) if took else None,
        "p99_s": round(took[int(0.99 * len(took))], 2) if took else None,
        "retry_after_s": f"{waits[0]} to {waits[-1]}" if waits else "",
    }


def no_room_lines(lab: Lab) -> int:
    """Return how often the log says that no node has room."""
    logs = (lab.folder / "hosts").glob("head/tmp/ray/session_2*/logs/serve/controller*.log")
    return sum(path.read_text(errors="replace").count("no node has room") for path in logs)


def main(folder: str, *names: str) -> None:
    lab = Lab.load(Path(folder))
    lab.in_user_namespace = False  # This process is already in the user namespace, if there is one.
    shape = Shape([*sections(names)])
    # The HAProxy of a GPU node stops with its last scorer, and these clients check no HAProxy.
    urls = [host.url for host in lab.proxies() if not host.gpus]
    clients = Clients(shape, urls, lab.key)
    samples: list[Sample] = []
    stop, began_s = threading.Event(), time.monotonic()
    watching = threading.Thread(target=watch, args=(lab, shape, began_s, stop, samples))
    watching.start()
    clients.run(began_s)
    stop.set()
    watching.join()
    first = [each for each in clients.answers if each.section == FROM_ZERO and each.status == 200]
    result = {
        "up_s": lab.up_s,
        "sections": [summary(each, clients.answers, samples) for each in shape.sections],
        "from_zero_s": round(max(each.seconds for each in first), 2) if first else None,
        "no_room_lines": no_room_lines(lab),
        "samples": [asdict(each) for each in samples],
    }
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
