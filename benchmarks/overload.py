"""What happens when clients ask for twice what the service can do?

    python -m benchmarks.overload --json benchmarks/results/overload.json

It starts a service of its own (``cluster/local.yaml``, one scorer, the model `embedded`), measures
its capacity with as many clients as keep it busy, then sends requests at twice that rate whether
they are answered or not, and goes on as soon as that ends with one client who wants to be served
again. Once with the service's own time limit, and once with one that is so short that deadlines
matter. *Wasted* is what the scorer computed for requests that were not answered with scores.
The clients take their share of the same machine, and the capacity of a shared machine wavers:
it is measured before and after.
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

from benchmarks.load import ALL, Group, Server, Target, arrivals, bodies, closed_loop, percentile
from benchmarks.load import figures as load_figures
from benchmarks.machine import Machine, machine
from serve_app.deployments.local_ray import free_port
from tests.integration.service import ROOT, Service

DOCUMENTS = 10
CLIENTS = 8
TIMES = 2.0
MODEL = "embedded"
MEMORY_EVERY_S = 5.0
METRICS_EVERY_S = 12.0
"""Ray's own: a value reaches its page within this."""

AGAIN_S = 0.05
RECOVERED_MAX_S = 60.0


@dataclass(frozen=True, slots=True)
class Seen:
    """One request, as its client saw it; times are of one clock."""

    began: float
    ended: float
    status: int
    retry_after: str | None


@dataclass(slots=True)
class Phase:
    """One overload."""

    timeout_s: float | None
    """Of each request; ``None``: the service's own."""

    seconds: float
    requests_per_s: float
    statuses: dict[int, int] = field(default_factory=dict)
    goodput_documents_per_s: float = 0.0
    """Of answers with scores that came in this time."""

    capacity_documents_per_s: tuple[float, float] = (0.0, 0.0)
    """Before and after."""

    share_of_capacity: float = 0.0
    answer_p50_ms: float | None = None
    answer_p99_ms: float | None = None
    refusal_p50_ms: float | None = None
    refusal_p99_ms: float | None = None
    retry_after_s: list[int] = field(default_factory=list)
    """Least, median, most; all were integers, or this has failed."""

    wasted_share: float = 0.0
    memory_mib: list[int] = field(default_factory=list)
    """Of all the service's processes, every five seconds."""

    recovered_s: float = 0.0
    """From the last request of the load to the first answer to a client that came after it."""


@dataclass(frozen=True, slots=True)
class Result:
    """The answer, for people and for files."""

    question: str
    date: str
    machine: Machine
    model: str
    documents_per_request: int
    phases: list[Phase]


def capacity(server: Server, seconds: float) -> float:
    """Documents/s of clients that each send as soon as they were answered."""
    groups = [Group(ALL, server.target, CLIENTS, DOCUMENTS)]
    return load_figures(groups, closed_loop(groups, seconds, server.cpu_s))[0].documents_per_s


def computed_and_answered(service: Service) -> tuple[float, float]:
    """Tokens so far, as the service's own metrics tell."""
    found: defaultdict[str, float] = defaultdict(float)
    page = httpx.get(service.metrics_address, timeout=10).text
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            found[sample.name.removeprefix("ray_").removesuffix("_total")] += sample.value
    return found["rerank_scored_tokens"], found["rerank_tokens"]


def settled(service: Service) -> tuple[float, float]:
    """The same, once nothing changes any more."""
    last, found = None, computed_and_answered(service)
    while found != last:
        time.sleep(METRICS_EVERY_S)
        last, found = found, computed_and_answered(service)
    return found


async def overload(server: Server, phase: Phase) -> None:
    """Send at the phase's rate, wait for every answer, and fill in what the clients saw."""
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
                assert time.perf_counter() - closed < RECOVERED_MAX_S, "it does not recover"
                await asyncio.sleep(AGAIN_S)
            phase.recovered_s = round(time.perf_counter() - closed, 2)
            watch.cancel()
    tell(phase, seen, closed)


def tell(phase: Phase, seen: Sequence[Seen], closed: float) -> None:
    """What the clients of the load saw. The wait for the first answers is not counted."""
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
    """Median and 99th percentile in milliseconds."""
    values = [1_000 * (each.ended - each.began) for each in seen]
    return percentile(values, 0.5), percentile(values, 0.99)


def measure(
    service: Service, plan: Sequence[tuple[float | None, float]], busy_s: float
) -> list[Phase]:
    """Each phase between two measurements of what the service can do."""
    server = Server(
        "ours", Target(f"{service.address}/v1/rerank", MODEL, service.key), service.process.pid
    )
    capacity(server, busy_s)  # Warm.
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
    """A few lines for people."""
    before, after = phase.capacity_documents_per_s
    memory = phase.memory_mib
    quarter = max(1, len(memory) // 4)
    print(
        f"{phase.requests_per_s * DOCUMENTS:.0f} documents/s asked for, {phase.seconds:g} s,"
        f" time limit {phase.timeout_s or 'of the service'}:"
        f"\n  goodput {phase.goodput_documents_per_s} documents/s of {before} to {after}:"
        f" {phase.share_of_capacity:.0%}; statuses {phase.statuses}"
        f"\n  answers p50 {phase.answer_p50_ms} p99 {phase.answer_p99_ms} ms;"
        f" refusals p50 {phase.refusal_p50_ms} p99 {phase.refusal_p99_ms} ms,"
        f" Retry-After {phase.retry_after_s}"
        f"\n  wasted {phase.wasted_share:.1%}; recovered after {phase.recovered_s} s;"
        f" memory {statistics.mean(memory[:quarter]):.0f} MiB at first,"
        f" {statistics.mean(memory[-quarter:]):.0f} at last"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="The service at twice its capacity.")
    parser.add_argument("--seconds", type=float, default=300, help="of the first overload")
    parser.add_argument("--short-seconds", type=float, default=60, help="of the second")
    parser.add_argument("--short-timeout-s", type=float, default=3, help="its requests' time")
    parser.add_argument("--json", type=Path, help="write the result there")
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
        question="overload: what is answered, refused, wasted, and when it is over",
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
