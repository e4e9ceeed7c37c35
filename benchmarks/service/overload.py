"""What happens when clients send twice as much as the service can handle?

    python -m benchmarks.service.overload --json benchmarks/results/overload.json

It starts its own service (``cluster/local.yaml``, one scorer, the model `embedded`) and measures
its capacity with enough clients to keep it busy. Then it sends requests at twice that rate, whether
they are answered or not. Right after the overload, one client repeats a request until it is served.
One phase uses the service's own timeout, another a timeout that is so short that deadlines matter.
*Wasted* is the scorer's work for requests that did not get scores. The clients run on the same
machine. Its capacity varies over time, so it is measured before and after each phase.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path

import httpx
import yaml
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.machine import Machine, machine
from serve_app.deployments.local_ray import free_port
from testkit.load import ALL, Group, Server, Target, arrivals, bodies, closed_loop
from testkit.load_figures import figures as load_figures
from testkit.load_figures import percentile
from testkit.service import ROOT, Service

DOCUMENTS = 10
CLIENTS = 8
TIMES = 2.0
MODEL = "embedded"
MEMORY_EVERY_S = 5.0
METRICS_EVERY_S = 12.0
"""Time within which a value reaches Ray's metrics page."""

AGAIN_S = 0.05
RECOVERED_MAX_S = 60.0


@dataclass(frozen=True, slots=True)
class Seen:
    """One request, as observed by its client; all times are from the same clock."""

    began: float
    ended: float
    status: int
    retry_after: str | None


@dataclass(slots=True)
class Phase:
    """One overload and its results."""

    timeout_s: float | None
    """Timeout of each request; ``None``: the service's default."""

    seconds: float
    requests_per_s: float
    statuses: dict[int, int] = field(default_factory=dict)
    goodput_documents_per_s: float = 0.0
    """Documents of successful answers that arrived during the overload."""

    capacity_documents_per_s: tuple[float, float] = (0.0, 0.0)
    """Capacity before and after the overload."""

    share_of_capacity: float = 0.0
    answer_p50_ms: float | None = None
    answer_p99_ms: float | None = None
    refusal_p50_ms: float | None = None
    refusal_p99_ms: float | None = None
    retry_after_s: list[int] = field(default_factory=list)
    """Minimum, median and maximum. The benchmark fails if a value is not an integer."""

    wasted_share: float = 0.0
    memory_mib: list[int] = field(default_factory=list)
    """Memory of all the service's processes, every five seconds."""

    recovered_s: float = 0.0
    """Time from the last request of the overload to the first success of a later client."""


@dataclass(frozen=True, slots=True)
class Result:
    """The result of the benchmark."""

    question: str
    date: str
    machine: Machine
    model: str
    documents_per_request: int
    phases: list[Phase]


def capacity(server: Server, seconds: float) -> float:
    """Return the documents/s of clients that send again immediately after each answer."""
    groups = [Group(ALL, server.target, CLIENTS, DOCUMENTS)]
    return load_figures(groups, closed_loop(groups, seconds, server.cpu_s))[0].documents_per_s


def computed_and_answered(service: Service) -> tuple[float, float]:
    """Return the numbers of computed and of answered tokens so far, from the service's metrics."""
    found: defaultdict[str, float] = defaultdict(float)
    page = httpx.get(service.metrics_address, timeout=10).text
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            found[sample.name.removeprefix("ray_").removesuffix("_total")] += sample.value
    return found["rerank_scored_tokens"], found["rerank_tokens"]


def settled(service: Service) -> tuple[float, float]:
    """Return the same numbers, once they no longer change."""
    last, found = None, computed_and_answered(service)
    while found != last:
        time.sleep(METRICS_EVERY_S)
        last, found = found, computed_and_answered(service)
    return found


async def overload(server: Server, phase: Phase) -> None:
    """Send at the phase's rate, wait for every answer, and fill in the clients' figures."""
    headers = {**server.target.headers, "Content-Type": "application/json"}
    if phase.timeout_s is not None:
        headers["x-request-timeout-s"] = f"{phase.timeout_s:g}"
    prepared = cycle(bodies(Group(ALL, server.target, 0, DOCUMENTS), seed=0))
    seen: list[Seen] = []
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
    async with httpx.AsyncClient(headers=headers, timeout=120, limits=limits) as http:

        async def ask(body: bytes) -> int:
            began = time.perf_counter()
            answer = await http.post(server.target.url, content=body)
            seen.append(
                Seen(
                    began,
                    time.perf_counter(),
                    answer.status_code,
                    answer.headers.get("retry-after"),
                )
            )
            return answer.status_code

        async def watch_memory() -> None:
            while True:
                phase.memory_mib.append(await asyncio.to_thread(server.memory_mib))
                await asyncio.sleep(MEMORY_EVERY_S)

        opened = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(watch_memory())
            for at in arrivals(phase.requests_per_s, phase.seconds, seed=7):
                await asyncio.sleep(max(0.0, opened + at - time.perf_counter()))
                group.create_task(ask(next(prepared)))
            closed = time.perf_counter()
            while await ask(next(prepared)) != 200:
                assert time.perf_counter() - closed < RECOVERED_MAX_S, (
                    "the service does not recover"
                )
                await asyncio.sleep(AGAIN_S)
            phase.recovered_s = round(time.perf_counter() - closed, 2)
            watch.cancel()
    fill_in_figures(phase, seen, closed)


def fill_in_figures(phase: Phase, seen: Sequence[Seen], closed: float) -> None:
    """Fill in the figures of the overload's clients. Goodput counts from the first answer."""
    load = [each for each in seen if each.began < closed]
    phase.statuses = dict(Counter(each.status for each in load))
    answers = [each for each in load if each.status == 200]
    inside = [each for each in answers if each.ended < closed]
    first = min(each.ended for each in inside)
    phase.goodput_documents_per_s = round(DOCUMENTS * (len(inside) - 1) / (closed - first), 1)
    phase.answer_p50_ms, phase.answer_p99_ms = times(answers)
    refusals = [each for each in load if each.status == 429]
    phase.refusal_p50_ms, phase.refusal_p99_ms = times(refusals)
    waits = sorted(int(each.retry_after or "missing") for each in refusals)
    if waits:
        phase.retry_after_s = [waits[0], round(statistics.median(waits)), waits[-1]]


def times(seen: Sequence[Seen]) -> tuple[float | None, float | None]:
    """Return median and 99th percentile in milliseconds."""
    values = [1_000 * (each.ended - each.began) for each in seen]
    return percentile(values, 0.5), percentile(values, 0.99)


def measure(
    service: Service, plan: Sequence[tuple[float | None, float]], busy_s: float
) -> list[Phase]:
    """Run each phase between two measurements of the service's capacity."""
    server = Server(
        "ours", Target(f"{service.address}/v1/rerank", MODEL, service.key), service.process.pid
    )
    capacity(server, busy_s)  # Warm up.
    before = capacity(server, busy_s)
    phases = []
    for timeout_s, seconds in plan:
        computed, answered = settled(service)
        phase = Phase(timeout_s, seconds, round(TIMES * before / DOCUMENTS, 2))
        asyncio.run(overload(server, phase))
        computed_then, answered_then = settled(service)
        phase.wasted_share = round(
            1 - (answered_then - answered) / max(1.0, computed_then - computed), 4
        )
        after = capacity(server, busy_s)
        phase.capacity_documents_per_s = (before, after)
        phase.share_of_capacity = round(2 * phase.goodput_documents_per_s / (before + after), 3)
        phases.append(phase)
        show(phase)
        before = after
    return phases


def show(phase: Phase) -> None:
    before, after = phase.capacity_documents_per_s
    memory = phase.memory_mib
    quarter = max(1, len(memory) // 4)
    print(
        f"{phase.requests_per_s * DOCUMENTS:.0f} documents/s sent, {phase.seconds:g} s,"
        f" timeout {phase.timeout_s or 'of the service'}:"
        f"\n  goodput {phase.goodput_documents_per_s} documents/s of {before} to {after}:"
        f" {phase.share_of_capacity:.0%}; statuses {phase.statuses}"
        f"\n  answers p50 {phase.answer_p50_ms} p99 {phase.answer_p99_ms} ms;"
        f" rejections p50 {phase.refusal_p50_ms} p99 {phase.refusal_p99_ms} ms,"
        f" Retry-After {phase.retry_after_s}"
        f"\n  wasted {phase.wasted_share:.1%}; recovered after {phase.recovered_s} s;"
        f" memory {statistics.mean(memory[:quarter]):.0f} MiB in the first quarter,"
        f" {statistics.mean(memory[-quarter:]):.0f} in the last"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="The service at twice its capacity.")
    parser.add_argument("--seconds", type=float, default=300, help="duration of the first overload")
    parser.add_argument("--short-seconds", type=float, default=60, help="duration of the second")
    parser.add_argument("--short-timeout-s", type=float, default=3, help="its requests' timeout")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    chosen = parser.parse_args()
    config = yaml.safe_load((ROOT / "cluster/local.yaml").read_text())
    plan = [(None, chosen.seconds), (chosen.short_timeout_s, chosen.short_seconds)]
    with tempfile.TemporaryDirectory() as folder:
        service = Service.start(Path(folder), config, free_port())
        try:
            phases = measure(service, plan, min(20.0, chosen.short_seconds))
        finally:
            service.stop()
    result = Result(
        question="overload: answers, rejections, wasted work and recovery",
        date=datetime.now(UTC).date().isoformat(),
        machine=machine(),
        model=MODEL,
        documents_per_request=DOCUMENTS,
        phases=phases,
    )
    if chosen.json:
        chosen.json.write_text(json.dumps(asdict(result), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
