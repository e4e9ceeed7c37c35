"""How much does the service cost on top of its engine? Measures the whole service over HTTP.

    python -m benchmarks.service.overhead --json benchmarks/results/service.json

It starts its own service (``cluster/local.yaml`` on a free port, in a temporary folder). The engine
alone is measured on texts of the same kind, in turns with the service, because the machine's speed
may vary. The clients run on the same machine.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import httpx
import psutil
import yaml
from rich.progress import track

from benchmarks.engine import texts
from loadtests.traffic import Traffic
from serve_app.deployments.local_ray import free_port
from serve_app.dispatch.portions import cut
from serve_app.domain.model import EMBEDDED, Portion
from serve_app.domain.units import Tokens
from serve_app.engine.limits import EngineLimits
from serve_app.engine.loading import load_engine, load_tokenizer
from serve_app.ports import Engine
from serve_app.settings.models import Checkpoint
from serve_app.settings.scorer import ScorerSettings
from testkit.load import cpu_s
from testkit.service import ROOT, Service

CLIENTS = 8
DOCUMENTS = 50
TURNS = 3
LIMITS = ScorerSettings(checkpoint=Checkpoint(source=EMBEDDED))


@dataclass(frozen=True, slots=True)
class Latency:
    """Latency of sequential requests, in milliseconds."""

    documents: int
    requests: int
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Result:
    """The result of the benchmark."""

    question: str
    date: str
    python: str
    torch: str
    ray: str
    cpus: int
    processor: str
    precision: str
    model: str
    start_s: float
    latencies: list[Latency]
    clients: int
    documents_per_request: int
    service_documents_per_s: list[float]
    engine_documents_per_s: list[float]
    share_of_engine: float
    memory_mib: dict[str, float]


def latency(client: httpx.Client, documents: int, requests: int) -> Latency:
    """Send one request after the other; return their latency."""
    traffic = Traffic(seed=documents)
    times_ms = []
    for _ in track(range(requests), f"{documents} documents, one client"):
        body = request_body(traffic, documents)
        started = time.perf_counter()
        client.post("/v1/rerank", json=body).raise_for_status()
        times_ms.append(1_000 * (time.perf_counter() - started))
    cuts = statistics.quantiles(times_ms, n=100)
    return Latency(documents, requests, round(cuts[49], 1), round(cuts[98], 1))


def request_body(traffic: Traffic, documents: int) -> dict[str, object]:
    request = traffic.request(documents)
    return {"model": "embedded", "query": request.query, "documents": request.documents}


def service_speed(service: Service, seconds: float, seed: int) -> float:
    documents, took_s = served(service, seconds, seed)
    return documents / took_s


def cpu_parts(service: Service, *applications: str) -> list[float]:
    """Return CPU seconds so far: of each application's replicas with child processes, and of the
    rest."""
    replicas = [
        [process for first in service.replicas(name) for process in (first, *first.children())]
        for name in applications
    ]
    known = {process.pid for each in replicas for process in each}
    others = [process for process in service.family() if process.pid not in known]
    return [cpu_s(each) for each in (*replicas, others)]


def served(
    service: Service, seconds: float, seed: int, headers: Callable[[], dict[str, str]] = dict
) -> tuple[int, float]:
    """Run `CLIENTS` clients that send again immediately after each answer.

    Args:
        headers: Returns additional headers for each request.

    Returns: Number of documents, and seconds.
    """

    def run_client(number: int) -> int:
        traffic = Traffic(seed=1_000 * seed + number)
        answered = 0
        with service.client() as client:
            while time.perf_counter() < end:
                body = request_body(traffic, DOCUMENTS)
                client.post("/v1/rerank", json=body, headers=headers()).raise_for_status()
                answered += DOCUMENTS
        return answered

    started = time.perf_counter()
    end = started + seconds
    with ThreadPoolExecutor(CLIENTS) as threads:
        documents = sum(threads.map(run_client, range(CLIENTS)))
    return documents, time.perf_counter() - started


def engine_batches(requests: int) -> list[list[Portion]]:
    """Return traffic as the clients', as full batches of portions."""
    tokenizer = load_tokenizer("embedded")
    traffic = Traffic(seed=1)
    portions = []
    for _ in range(requests):
        request = traffic.request(DOCUMENTS)
        job = texts.job(request)
        limit = Tokens(LIMITS.portion_tokens_max)
        portions += [each.portion() for each in cut(job.request_id, tokenizer.tokenize(job), limit)]
    per_batch = LIMITS.batch_tokens_max // LIMITS.portion_tokens_max
    return [portions[start : start + per_batch] for start in range(0, len(portions), per_batch)]


def engine_speed(engine: Engine, batches: Sequence[Sequence[Portion]], seconds: float) -> float:
    """Return the documents/s of the engine alone, batch after batch."""
    documents = turn = 0
    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        batch = batches[turn % len(batches)]
        engine.score(batch)
        documents += sum(len(portion.lengths) for portion in batch)
        turn += 1
    return documents / (time.perf_counter() - started)


def memory_mib(service: Service) -> dict[str, float]:
    """Return the proportional set size of each kind of process, and of all of them."""
    kinds = {
        "gateway": "ServeReplica:rerank:gateway",
        "scorer": "ServeReplica:rerank:scorer",
        "haproxy": "haproxy -",
    }
    sizes = dict.fromkeys((*kinds, "ray and serve"), 0.0)
    for process in [psutil.Process(service.process.pid), *service.family()]:
        command = " ".join(process.cmdline())
        kind = next((name for name, mark in kinds.items() if mark in command), "ray and serve")
        sizes[kind] += process.memory_full_info().pss / 2**20
    sizes["all"] = sum(sizes.values())
    return {name: round(size) for name, size in sizes.items()}


def in_turns(engine: Callable[[], float], service: Callable[[int], float]) -> list[list[float]]:
    """Measure both alternately, the engine first; return both lists of speeds."""
    speeds: list[list[float]] = [[], []]
    for turn in track(range(TURNS), "engine and service, in turns"):
        speeds[0].append(round(engine(), 1))
        speeds[1].append(round(service(turn), 1))
    return speeds


def measure(folder: Path, seconds: float) -> Result:
    config = yaml.safe_load((ROOT / "cluster/local.yaml").read_text())
    started = time.perf_counter()
    service = Service.start(folder, config, port=free_port())
    start_s = time.perf_counter() - started
    try:
        limits = EngineLimits(LIMITS.batch_tokens_max)
        engine = load_engine("embedded", None, "auto", limits)
        engine.warm_up()
        batches = engine_batches(requests=40)
        with service.client() as client:
            latency(client, documents=1, requests=20)
            latencies = [latency(client, 1, 200), latency(client, 5, 100), latency(client, 50, 60)]
        engine_speeds, service_speeds = in_turns(
            lambda: engine_speed(engine, batches, seconds),
            lambda turn: service_speed(service, seconds, turn),
        )
        memory = memory_mib(service)
    finally:
        service.stop()
    share = statistics.median(service_speeds) / statistics.median(engine_speeds)
    return Result(
        question="How much does the service cost on top of its engine?",
        date=datetime.now(UTC).date().isoformat(),
        python=platform.python_version(),
        torch=version("torch"),
        ray=version("ray"),
        cpus=os.cpu_count() or 0,
        processor=platform.processor() or platform.machine(),
        precision=engine.precision,
        model=engine.description,
        start_s=round(start_s, 1),
        latencies=latencies,
        clients=CLIENTS,
        documents_per_request=DOCUMENTS,
        service_documents_per_s=service_speeds,
        engine_documents_per_s=engine_speeds,
        share_of_engine=round(share, 3),
        memory_mib=memory,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="The service compared with its engine.")
    parser.add_argument("--seconds", type=float, default=15, help="duration of each turn")
    parser.add_argument("--json", type=Path, help="write everything to this file")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), chosen.seconds)
    text = json.dumps(asdict(result), indent=2)
    print(text)
    if chosen.json is not None:
        chosen.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
