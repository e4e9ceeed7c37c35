"""Do traces slow the service?

    python -m benchmarks.service.traces --json benchmarks/results/traces.json

Three services take turns under the same load: one traces no request, one a tenth of them, as
``cluster/ray.env`` says, and one every request. Each has one gateway with SQLite, and one scorer
on a simulated GPU that is faster than the CPUs can feed, so CPU time decides. The collector only
counts bytes; it and the clients use the same cores. The figures are medians, and the ratios medians
over turns.
"""

import argparse
import json
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.machine import Machine, machine
from benchmarks.service.overhead import cpu_parts
from testkit.load import ALL, Group, Target, closed_loop
from testkit.load_figures import figures
from testkit.otlp import receiving
from testkit.service import Service, deployment, model, serve_config
from testkit.simulated_service import simulated_service

GPU_TOKENS_PER_S = 10_000 * 67
"""Documents/s times the tokens of a pair."""

LOADS = ((32, 5), (16, 50), (4, 500))
"""Clients, and documents per request."""

DOLLARS = "1000"

NONE, TENTH, ALL_REQUESTS = "none", "a tenth", "all"
"""The requests that a service traces."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One load on one service."""

    documents_per_s: float
    p50_ms: float
    cpu_ms: float
    """CPU time of gateway and scorer per document."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One load on a service with traces, and on the one without."""

    clients: int
    documents_per_request: int
    traced_requests: str
    plain: Turn
    traced: Turn
    ratio: Turn
    """Of the service with traces to the one without."""

    cpu_ratios: list[float]
    """Of each turn."""


@dataclass(frozen=True, slots=True)
class Result:
    """The result of the benchmark."""

    question: str
    date: str
    machine: Machine
    turns: int
    seconds: float
    comparisons: list[Comparison]


@contextmanager
def service_with(traced: str, endpoint: str) -> Iterator[Service]:
    config = serve_config(
        [model("embedded", "embedded", deployment(1, max_ongoing_requests=2_048))],
        deployment(1, max_ongoing_requests=512),
        traces="none" if traced == NONE else "without_texts",
    )
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
    if traced == ALL_REQUESTS:
        variables["OTEL_TRACES_SAMPLER"] = "always_on"
    with simulated_service(config, GPU_TOKENS_PER_S, **variables) as service:
        yield service


def turn(service: Service, clients: int, documents: int, seconds: float) -> Turn:
    used_s: list[float] = []

    def mark() -> float:
        gateway_s, scorer_s, _ = cpu_parts(service, "rerank", "embedded")
        used_s.append(gateway_s + scorer_s)
        return 0.0

    target = Target(f"{service.address}/v1/rerank", "embedded", service.key)
    group = Group(ALL, target, clients, documents)
    observed = closed_loop([group], seconds, mark)
    found = figures([group], observed)[0]
    assert found.p50_ms is not None
    counted = found.documents_per_s * (observed.closed - observed.opened)
    before, after = used_s
    return Turn(found.documents_per_s, found.p50_ms, 1_000 * (after - before) / counted)


def compare(
    services: Mapping[str, Service], load: tuple[int, int], turns: int, seconds: float
) -> Iterator[Comparison]:
    """Measure a load; which service is first changes from turn to turn."""
    taken: defaultdict[str, list[Turn]] = defaultdict(list)
    for name in services:
        turn(services[name], *load, seconds / 4)  # Warm up.
    for number in range(turns):
        for name in sorted(services, reverse=bool(number % 2)):
            taken[name].append(turn(services[name], *load, seconds))
    for name in (TENTH, ALL_REQUESTS):
        ratios = [
            Turn(*(ours / theirs for ours, theirs in zip(_values(a), _values(b), strict=True)))
            for a, b in zip(taken[name], taken[NONE], strict=True)
        ]
        yield Comparison(
            *load,
            name,
            plain=_median(taken[NONE]),
            traced=_median(taken[name]),
            ratio=_median(ratios),
            cpu_ratios=[round(each.cpu_ms, 3) for each in ratios],
        )


def _values(each: Turn) -> tuple[float, float, float]:
    return each.documents_per_s, each.p50_ms, each.cpu_ms


def _median(turns: Sequence[Turn]) -> Turn:
    columns = zip(*map(_values, turns), strict=True)
    return Turn(*(round(statistics.median(column), 3) for column in columns))


def print_table(comparisons: Sequence[Comparison]) -> None:
    table = Table(
        *("clients", "documents", "traced", "documents/s: without", "with"),
        *("ratio", "CPU ratio", "p50 ratio"),
    )
    for each in comparisons:
        cells = (
            *(each.clients, each.documents_per_request, each.traced_requests),
            *(each.plain.documents_per_s, each.traced.documents_per_s),
            *(each.ratio.documents_per_s, each.ratio.cpu_ms, each.ratio.p50_ms),
        )
        table.add_row(*(cell if isinstance(cell, str) else f"{cell:,}" for cell in cells))
    Console(width=110).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description="The service with traces and without, in turns.")
    parser.add_argument("--seconds", type=float, default=8, help="of each turn")
    parser.add_argument("--turns", type=int, default=6, help="of each service and load")
    parser.add_argument("--json", type=Path, help="write everything to this file")
    chosen = parser.parse_args()
    comparisons: list[Comparison] = []
    with receiving(decodes=False) as collector, ExitStack() as stack:
        services = {
            traced: stack.enter_context(service_with(traced, collector.endpoint))
            for traced in (NONE, TENTH, ALL_REQUESTS)
        }
        for service in services.values():
            service.command("credit", "add", "dev", DOLLARS, "--reason", "benchmark")
        for load in LOADS:
            comparisons += compare(services, load, chosen.turns, chosen.seconds)
            print_table(comparisons[-2:])
    result = Result(
        question="Do traces slow the service?",
        date=datetime.now(UTC).date().isoformat(),
        machine=machine(),
        turns=chosen.turns,
        seconds=chosen.seconds,
        comparisons=comparisons,
    )
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(asdict(result), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
