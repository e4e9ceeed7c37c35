"""How much CPU do a gateway and a scorer use per document when a GPU computes? Needs no GPU.

    python -m benchmarks.service.gpu_overhead --json benchmarks/results/gpu-overhead.json

The whole service runs with SQLite and is called over HTTP, but its GPU is simulated
(`testkit.simulated_gpu`). Only the work of the CPUs remains: read, tokenize, meter, dispatch, pad,
answer. The clients run on the same cores. Each simulated GPU runs with one batch at a time, and
with two, of which the second is prepared while the first is computed.
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.machine import Machine, machine
from benchmarks.service.overhead import cpu_parts
from testkit.load import ALL, Group, Target, closed_loop
from testkit.load_figures import figures as load_figures
from testkit.service import Service, deployment, model, serve_config
from testkit.simulated_service import simulated_service

GPUS = (960, 10_000)
"""Simulated GPUs, by documents/s of 67 tokens. 960 is a V100, according to the model card. 10,000
is more than two cores can keep busy with small requests."""

PAIR_TOKENS = 67
LOADS = ((1, 5), (32, 5), (16, 50), (4, 500))
"""Clients, and documents per request."""

SETTLE_S, IDLE_S = 5.0, 15.0


@dataclass(frozen=True, slots=True)
class Took:
    """The result of one load on one simulated GPU."""

    gpu_documents_per_s: int
    batches_at_once: int
    clients: int
    documents_per_request: int
    documents_per_s: float
    gpu_share: float
    """Share of the GPU's documents/s, accurate to a few per cent: 67 tokens are only an average."""

    p50_ms: float | None
    """Median latency of a request."""

    gateway_ms: float
    """CPU time per document, as the next two fields."""

    scorer_ms: float
    other_ms: float
    """HAProxy and Ray's own processes, which also use CPU without requests."""


@dataclass(frozen=True, slots=True)
class Result:
    """The result of the benchmark."""

    question: str
    date: str
    machine: Machine
    idle_cores: float
    """CPU use of all processes without requests, in cores."""

    took: list[Took]


@contextmanager
def service_with(gpu: int, batches_at_once: int) -> Iterator[Service]:
    """Start a service with one gateway, one scorer and one simulated GPU."""
    config = serve_config(
        [model("embedded", "embedded", deployment(1, max_ongoing_requests=2_048))],
        deployment(1, max_ongoing_requests=512),
    )
    with simulated_service(config, gpu * PAIR_TOKENS, batches_at_once) as service:
        yield service


def parts(service: Service) -> list[float]:
    """Return CPU seconds used so far by gateway, scorer and all other processes."""
    return cpu_parts(service, "rerank", "embedded")


def took(service: Service, gpu: int, batches_at_once: int, seconds: float) -> Iterator[Took]:
    target = Target(f"{service.address}/v1/rerank", "embedded", service.key)
    for clients, documents in LOADS:
        marks: list[list[float]] = []

        def mark() -> float:
            marks.append(parts(service))  # noqa: B023 - called before the next iteration
            return 0.0

        group = Group(ALL, target, clients, documents)
        observed = closed_loop([group], seconds, mark)
        figures = load_figures([group], observed)[0]
        speed = figures.documents_per_s
        counted = speed * (observed.closed - observed.opened)
        each = [1_000 * (after - before) / counted for before, after in zip(*marks, strict=True)]
        yield Took(
            gpu,
            batches_at_once,
            clients,
            documents,
            speed,
            round(speed / gpu, 3),
            figures.p50_ms,
            *(round(value, 3) for value in each),
        )


def idle_cores(service: Service) -> float:
    """Return CPU seconds per second without requests."""
    time.sleep(SETTLE_S)
    before, began = sum(parts(service)), time.perf_counter()
    time.sleep(IDLE_S)
    return round((sum(parts(service)) - before) / (time.perf_counter() - began), 3)


def measure(gpus: Sequence[int], seconds: float) -> tuple[float, list[Took]]:
    """Measure the idle CPU use, and each simulated GPU with one batch at a time and with two."""
    idle: list[float] = []
    all_took: list[Took] = []
    for gpu in track(gpus, "GPUs"):
        for batches_at_once in (1, 2):
            with service_with(gpu, batches_at_once) as service:
                idle.append(idle_cores(service))
                all_took += took(service, gpu, batches_at_once, seconds)
    return statistics.median(idle), all_took


def print_table(all_took: Sequence[Took]) -> None:
    table = Table(
        *("GPU", "batches", "clients", "documents", "documents/s", "share", "p50, ms"),
        *("gateway", "scorer", "rest"),
    )
    for each in all_took:
        table.add_row(*("" if value is None else f"{value:,}" for value in astuple(each)))
    Console(width=110).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description="The service with a simulated GPU.")
    parser.add_argument("--seconds", type=float, default=10, help="duration of each load")
    parser.add_argument("--gpus", type=int, nargs="+", default=GPUS, help="GPUs, by documents/s")
    parser.add_argument("--json", type=Path, help="write everything to this file")
    chosen = parser.parse_args()
    idle, all_took = measure(chosen.gpus, chosen.seconds)
    result = Result(
        question="How much CPU do a gateway and a scorer use per document when a GPU computes?",
        date=datetime.now(UTC).date().isoformat(),
        machine=machine(),
        idle_cores=idle,
        took=all_took,
    )
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(asdict(result), indent=2) + "\n", encoding="utf-8")
    print_table(all_took)
    print(f"Without requests: {idle} cores.")


if __name__ == "__main__":
    main()
