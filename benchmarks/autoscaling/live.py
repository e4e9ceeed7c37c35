"""Does the autoscaler behave on a real Ray as in the simulation `benchmarks.autoscaling.simulated`?

    python -m benchmarks.autoscaling.live --json benchmarks/results/autoscaling_live.json \\
        --plot benchmarks/results/autoscaling_live.png

It starts its own service with the model `embedded`, one to four scorers of a quarter of a CPU each,
and shorter delays than the defaults. The loads are: low; a step to more than one replica can
handle; a square wave; low; none, until no replica is left; one request; and, after the controller
was killed, the step again. The wanted number of replicas is read from the controller's log, the
actual number from the machine's processes. All scorers share the machine's cores, so more of them
do not answer more requests. The benchmark only shows when replicas start and stop.
"""

import argparse
import json
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import matplotlib as mpl
import psutil
import yaml

from benchmarks.machine import Machine, machine
from loadtests.traffic import Traffic
from serve_app.deployments.local_ray import free_port
from serve_app.domain.clock import SystemClock
from testkit.service import ROOT, Service

mpl.use("Agg")
from matplotlib import pyplot as plt

MODEL = "embedded"
REPLICAS_MAX = 4
POLICY = {"delay_s": 1, "up_after_s": 1.5, "down_after_s": 60, "zero_after_s": 90}
LOOK_EVERY_S = 0.2
BUSY_CPU_SHARE = 0.1
"""Share of a core above which a replica counts as busy."""

LITTLE = (1, 5, 1.0)
"""Clients, documents per request, and seconds between an answer and the next request."""

MUCH = (16, 20, 0.0)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A scaling decision of the controller."""

    at_s: float
    replicas: int


@dataclass(slots=True)
class Replica:
    """One scorer's process. Times are in seconds since the start of the run; ``None``: not seen."""

    pid: int
    started_s: float
    ready_s: float | None = None
    busy_s: float | None = None
    ended_s: float | None = None
    spent_s: dict[str, float] = field(default_factory=dict)
    """Durations of the steps of its start, from its own log."""


@dataclass(frozen=True, slots=True)
class Step:
    """The start of a load."""

    at_s: float
    name: str


@dataclass(slots=True)
class Result:
    """The result; times are in seconds since the start of the run."""

    question: str
    date: str
    machine: Machine
    policy: dict[str, float]
    steps: list[Step] = field(default_factory=list)
    wanted: list[Wanted] = field(default_factory=list)
    replicas: list[Replica] = field(default_factory=list)
    statuses: dict[str, dict[int, int]] = field(default_factory=dict)
    """Number of answers in each step, by status."""

    up_after_s: float | None = None
    """Time from the step in load to the decision for all four replicas."""

    warm_after_s: list[float] = field(default_factory=list)
    """Time from that decision to the readiness of each new replica."""

    serving_after_s: list[float] = field(default_factory=list)
    """Time from the readiness of each new replica to its first work."""

    reversals_in_wave: int = 0
    """Number of decisions that reverse the direction of the previous one."""

    first_answer_from_zero_s: float | None = None
    controller_restart_answers: dict[int, int] = field(default_factory=dict)
    replicas_max: int = 0


class Load:
    """A replaceable set of clients."""

    def __init__(self, service: Service, result: Result, now: Callable[[], float]) -> None:
        self._service = service
        self._result = result
        self._now = now
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def set(self, name: str, clients: int, documents: int, think_s: float) -> None:
        """Replace the clients by these."""
        self.end()
        self._stop = threading.Event()
        self._result.steps.append(Step(round(self._now(), 2), name))
        seen = self._result.statuses.setdefault(name, {})
        self._threads = [
            threading.Thread(
                target=self._client, args=(number, documents, think_s, self._stop, seen)
            )
            for number in range(clients)
        ]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Stop all clients, after their current requests."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._threads = []

    def _client(
        self,
        seed: int,
        documents: int,
        think_s: float,
        stop: threading.Event,
        seen: dict[int, int],
    ) -> None:
        traffic = Traffic(seed)
        with self._service.client() as http:
            while not stop.is_set():
                status, wait_s = ask(http, traffic, documents)
                seen[status] = seen.get(status, 0) + 1
                stop.wait(max(wait_s, think_s))


def ask(http: httpx.Client, traffic: Traffic, documents: int) -> tuple[int, float]:
    """Return the answer's status, 0 for a broken connection, and its Retry-After in seconds."""
    request = traffic.request(documents)
    body = {"model": MODEL, "query": request.query, "documents": request.documents}
    try:
        answer = http.post("/v1/rerank", json=body)
    except httpx.TransportError:
        return 0, 0.5
    return answer.status_code, float(answer.headers.get("retry-after", 0))


class Watch:
    """Records scorers and when they work, while the block runs."""

    def __init__(self, service: Service, result: Result, now: Callable[[], float]) -> None:
        self._service = service
        self._result = result
        self._now = now
        self._known: dict[int, Replica] = {}
        self._cpu_s: dict[int, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(LOOK_EVERY_S):
            there = {process.pid: process for process in self._service.replicas(MODEL)}
            self._result.replicas_max = max(self._result.replicas_max, len(there))
            for process in there.values():
                self._look_at(process)
            for pid, replica in self._known.items():
                if pid not in there and replica.ended_s is None:
                    replica.ended_s = round(self._now(), 2)
            self._listen()

    def _look_at(self, process: psutil.Process) -> None:
        try:
            cpu = process.cpu_times()
        except psutil.NoSuchProcess:
            return
        if process.pid not in self._known:
            replica = self._known[process.pid] = Replica(process.pid, round(self._now(), 2))
            self._result.replicas.append(replica)
        replica = self._known[process.pid]
        used_s = cpu.user + cpu.system
        works = used_s - self._cpu_s.get(process.pid, used_s) > BUSY_CPU_SHARE * LOOK_EVERY_S
        self._cpu_s[process.pid] = used_s
        if works and replica.busy_s is None and replica.ready_s is not None:
            replica.busy_s = round(self._now(), 2)

    def _listen(self) -> None:
        for pid, spent_s in ready_lines(self._service):
            replica = self._known.get(pid)
            if replica is not None and replica.ready_s is None:
                replica.ready_s, replica.spent_s = round(self._now(), 2), spent_s


def log_lines(service: Service, name: str) -> Iterator[dict[str, Any]]:
    """Yield the JSON lines of the service's log files with this name."""
    for path in (service.var_dir / "ray").rglob(name):
        for line in path.read_text(errors="replace").splitlines():
            if line.startswith("{"):
                try:
                    yield json.loads(line)
                except ValueError:
                    continue


def ready_lines(service: Service) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield the process id of each warm scorer, and the durations of the steps of its start."""
    for line in log_lines(service, "*scorer*.log"):
        if line.get("message") == "scorer_warm":
            names = ("process_s", "load_s", "warm_up_s")
            yield int(line["process"]), {name: float(line[name]) for name in names}


SCALED = re.compile(r"scaling Deployment\(name='scorer'.*? to (\d+) replicas?")


def decisions(service: Service, started: float) -> list[Wanted]:
    """Return the decisions of the controller, and of its successor after the restart."""
    found = []
    for line in log_lines(service, "controller_*.log"):
        match = SCALED.search(str(line.get("message", "")))
        if match:
            at = float(line["timestamp_ns"]) / 1e9
            found.append(Wanted(round(at - started, 2), int(match[1])))
    return sorted(found, key=lambda each: each.at_s)


def reversals(wanted: list[int]) -> int:
    """Return how often the number changed direction."""
    ways = [after > before for before, after in pairwise(wanted) if after != before]
    return sum(first != second for first, second in pairwise(ways))


def main() -> None:
    parser = argparse.ArgumentParser(description="The autoscaler on a real Ray.")
    parser.add_argument("--wave-s", type=float, default=600)
    parser.add_argument("--json", type=Path, help="write the result to this file")
    parser.add_argument("--plot", type=Path, help="plot the result to this file")
    chosen = parser.parse_args()
    result = Result(
        "Does the autoscaler follow its load on a real Ray?",
        datetime.now(UTC).date().isoformat(),
        machine(),
        {name: float(value) for name, value in POLICY.items()},
    )
    with tempfile.TemporaryDirectory() as folder:
        service = Service.start(Path(folder), config(), free_port())
        try:
            play(service, result, chosen.wave_s)
        finally:
            service.stop()
    show(result)
    if chosen.json:
        chosen.json.write_text(json.dumps(asdict(result), indent=1) + "\n", encoding="utf-8")
    if chosen.plot:
        draw(result, chosen.plot)


def config() -> dict[str, Any]:
    """Return ``cluster/local.yaml`` with the policy and small scorers."""
    made: dict[str, Any] = yaml.safe_load((ROOT / "cluster/local.yaml").read_text())
    scorers, _ = made["applications"]
    scorers["args"]["scorer_threads"] = 1
    scorers["autoscaling_policy"] = {
        "policy_function": "serve_app.deployments.autoscaling:BacklogPolicy",
        "policy_kwargs": POLICY,
    }
    (deployment,) = scorers["deployments"]
    del deployment["num_replicas"]
    deployment["autoscaling_config"] = {
        "min_replicas": 0,
        "initial_replicas": 1,
        "max_replicas": REPLICAS_MAX,
        "metrics_interval_s": 1,
        "look_back_period_s": 5,
        "upscale_delay_s": 0,
        "downscale_delay_s": 0,
    }
    return made


def play(service: Service, result: Result, wave_s: float) -> None:
    clock = SystemClock()
    started = clock.moment() / 1_000

    def now() -> float:
        return clock.moment() / 1_000 - started

    load = Load(service, result, now)
    with Watch(service, result, now):
        try:
            load.set("little", *LITTLE)
            time.sleep(20)
            load.set("step", *MUCH)
            time.sleep(60)
            wave(load, wave_s)
            load.set("little again", *LITTLE)
            time.sleep(POLICY["down_after_s"] + 20)
            load.end()
            result.steps.append(Step(round(now(), 2), "nothing"))
            time.sleep(POLICY["zero_after_s"] + 20)
            from_zero(service, result, now)
            restart(service, load, result, now)
        finally:
            load.end()
    result.wanted = decisions(service, started)
    judge(result)


def wave(load: Load, seconds: float) -> None:
    """Alternate between low and high load every 30 s."""
    for number in range(round(seconds / 60)):
        load.set(f"wave {number}, low", *LITTLE)
        time.sleep(30)
        load.set(f"wave {number}, high", *MUCH)
        time.sleep(30)


def from_zero(service: Service, result: Result, now: Callable[[], float]) -> None:
    """Send a request again until it is answered, starting without any scorer."""
    assert not service.replicas(MODEL), "there are still scorers"
    result.steps.append(Step(round(now(), 2), "a request"))
    began = time.perf_counter()
    with service.client(timeout_s=120) as http:
        while (status := ask(http, Traffic(0), 5)[0]) != 200:
            seen = result.statuses.setdefault("a request", {})
            seen[status] = seen.get(status, 0) + 1
            time.sleep(0.5)
    result.first_answer_from_zero_s = round(time.perf_counter() - began, 2)


def restart(service: Service, load: Load, result: Result, now: Callable[[], float]) -> None:
    """Kill the controller under low load, then apply the high load."""
    load.set("little, controller killed", *LITTLE)
    time.sleep(5)
    (controller,) = (
        process for process in service.family() if "ServeController" in " ".join(process.cmdline())
    )
    controller.kill()
    time.sleep(25)
    result.controller_restart_answers = dict(result.statuses["little, controller killed"])
    load.set("step after the restart", *MUCH)
    time.sleep(60)
    load.end()
    result.steps.append(Step(round(now(), 2), "end"))


def judge(result: Result) -> None:
    at = {step.name: step.at_s for step in result.steps}
    full = [
        each.at_s
        for each in result.wanted
        if each.at_s >= at["step"] and each.replicas == REPLICAS_MAX
    ]
    if full:
        result.up_after_s = round(full[0] - at["step"], 2)
        new = [
            each
            for each in result.replicas
            if at["step"] <= each.started_s < at["wave 0, low"] and each.ready_s is not None
        ]
        result.warm_after_s = [round((each.ready_s or 0) - full[0], 2) for each in new]
        result.serving_after_s = [
            round(each.busy_s - each.ready_s, 2)
            for each in new
            if each.busy_s is not None and each.ready_s is not None
        ]
    in_wave = [
        each.replicas for each in result.wanted if at["step"] <= each.at_s < at["little again"]
    ]
    result.reversals_in_wave = reversals([1, *in_wave])


def show(result: Result) -> None:
    print("wanted:", " ".join(f"{each.replicas}@{each.at_s:.0f}s" for each in result.wanted))
    print("steps:", ", ".join(f"{each.name} {each.at_s:.0f}s" for each in result.steps))
    print(f"decision for {REPLICAS_MAX} replicas: {result.up_after_s} s after the step")
    print(f"warm after {result.warm_after_s} s, busy after another {result.serving_after_s} s")
    print("durations of their starts:", [each.spent_s for each in result.replicas])
    print(f"reversals in the wave: {result.reversals_in_wave}; most replicas {result.replicas_max}")
    print(f"first answer from zero: {result.first_answer_from_zero_s} s")
    print(f"answers around the controller's death: {result.controller_restart_answers}")
    print("statuses:", result.statuses)


def draw(result: Result, path: Path) -> None:
    """Plot wanted and warm replicas over time; high load is shaded."""
    end = result.steps[-1].at_s
    figure, axes = plt.subplots(figsize=(10, 3.2), layout="constrained")
    for step, following in pairwise(result.steps):
        if "high" in step.name or step.name.startswith("step"):
            axes.axvspan(step.at_s, following.at_s, color="0.9", linewidth=0)
    wanted = [(0.0, 1), *((each.at_s, each.replicas) for each in result.wanted)]
    wanted.append((end, wanted[-1][1]))
    axes.step(*zip(*wanted, strict=True), where="post", label="wanted", color="tab:blue")
    changes = sorted(
        [(each.ready_s, 1) for each in result.replicas if each.ready_s is not None]
        + [(each.ended_s, -1) for each in result.replicas if each.ended_s is not None]
    )
    count, warm = 0, [(0.0, 0)]
    for at, change in changes:
        count += change
        warm.append((at, count))
    warm.append((end, count))
    axes.step(*zip(*warm, strict=True), where="post", label="warm", color="tab:orange")
    axes.set_xlabel("seconds; grey: more load than one replica can handle")
    axes.set_ylabel("scorers")
    axes.legend(loc="upper right")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
