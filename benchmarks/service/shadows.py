"""Do shadows slow the requests that clients wait for?

    python -m benchmarks.service.shadows --json benchmarks/results/shadows.json

One gateway with SQLite serves two equal models, each in front of a simulated GPU. One of them has a
canary that scores shadows of a share of its requests, on a third simulated GPU. The models take
turns under the same load. All processes share the cores, so shadows also take CPU here that they
would take from other nodes on a cluster.
"""

import argparse
import json
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.machine import Machine, machine
from testkit.load import ALL, Group, Target, open_loop
from testkit.load_figures import percentile
from testkit.service import Service, deployment, model, serve_config
from testkit.simulated_service import simulated_service

GPU_TOKENS_PER_S = 960 * 67
"""A V100, according to the model card: documents/s times the tokens of a pair."""

PLAIN, SHADOWED, CANARY = "plain", "shadowed", "canary"
DOCUMENTS = 20
WARM_UP_S = 5.0


@dataclass(frozen=True, slots=True)
class Latency:
    """The latencies of one model, over all turns."""

    requests: int
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Took:
    """The result of one share."""

    shadow_share: float
    requests_per_s: float
    plain: Latency
    shadowed: Latency
    p50_ratio: float
    """Of the model with shadows to the one without, as the next one."""

    p99_ratio: float
    p50_ratios_of_turns: list[float]
    shadows: int
    """Number of comparisons."""


@dataclass(frozen=True, slots=True)
class Result:
    """The result of the benchmark."""

    question: str
    date: str
    machine: Machine
    documents_per_request: int
    took: list[Took]


@contextmanager
def service_with(share: float) -> Iterator[Service]:
    """Start a service whose second model has a canary with shadows."""
    scorers = deployment(1, max_ongoing_requests=2_048)
    models = [model(name, "embedded", scorers) for name in (PLAIN, SHADOWED)]
    models[1]["settings"]["canary"] = {
        "application": CANARY,
        "checkpoint": {"source": "embedded"},
        "shadow_share": share,
    }
    config = serve_config(models, deployment(1, max_ongoing_requests=512))
    config["applications"].append(config["applications"][2] | {"name": CANARY})
    with simulated_service(config, GPU_TOKENS_PER_S) as service:
        yield service


def turn(service: Service, name: str, requests_per_s: float, seconds: float) -> list[float]:
    """Return the latencies of one model under load, in ms."""
    group = Group(ALL, Target(f"{service.address}/v1/rerank", name, service.key), 1, DOCUMENTS)
    observed = open_loop(group, requests_per_s, seconds, lambda: 0.0)
    return [1_000 * (answer.ended - answer.began) for answer in observed.answers]


def measure(share: float, requests_per_s: float, turns: int, seconds: float) -> Took:
    times: dict[str, list[list[float]]] = {PLAIN: [], SHADOWED: []}
    with service_with(share) as service:
        for name in (PLAIN, SHADOWED):
            turn(service, name, requests_per_s, WARM_UP_S)
        for number in track(range(turns), f"shadows of {share:.0%}"):
            for name in (PLAIN, SHADOWED) if number % 2 == 0 else (SHADOWED, PLAIN):
                times[name].append(turn(service, name, requests_per_s, seconds))
        ((shadows,),) = service.rows("SELECT count(*) FROM shadow_comparisons")
    plain, shadowed = (latency(times[name]) for name in (PLAIN, SHADOWED))
    return Took(
        shadow_share=share,
        requests_per_s=requests_per_s,
        plain=plain,
        shadowed=shadowed,
        p50_ratio=round(shadowed.p50_ms / plain.p50_ms, 3),
        p99_ratio=round(shadowed.p99_ms / plain.p99_ms, 3),
        p50_ratios_of_turns=[
            round(statistics.median(ours) / statistics.median(theirs), 3)
            for ours, theirs in zip(times[SHADOWED], times[PLAIN], strict=True)
        ],
        shadows=shadows,
    )


def latency(turns: Sequence[Sequence[float]]) -> Latency:
    times = [each for turn in turns for each in turn]
    p50_ms, p99_ms = (percentile(times, share) for share in (0.5, 0.99))
    assert p50_ms is not None
    assert p99_ms is not None
    return Latency(len(times), p50_ms, p99_ms)


def print_table(all_took: Sequence[Took]) -> None:
    table = Table("shadows of", "requests/s", "without: p50, p99, ms", "with", "ratios", "shadows")
    for each in all_took:
        table.add_row(
            f"{each.shadow_share:.0%}",
            f"{each.requests_per_s:g}",
            *(f"{which.p50_ms}, {which.p99_ms}" for which in (each.plain, each.shadowed)),
            f"{each.p50_ratio}, {each.p99_ratio}",
            f"{each.shadows:,} of {each.shadowed.requests:,}",
        )
    Console(width=110).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description="Live latency with shadows and without.")
    parser.add_argument("--shares", type=float, nargs="+", default=(0.1, 1.0))
    parser.add_argument("--rate", type=float, default=30, help="requests per second")
    parser.add_argument("--turns", type=int, default=6, help="turns of each model")
    parser.add_argument("--seconds", type=float, default=10, help="duration of a turn")
    parser.add_argument("--json", type=Path, help="write everything to this file")
    chosen = parser.parse_args()
    took = [measure(share, chosen.rate, chosen.turns, chosen.seconds) for share in chosen.shares]
    result = Result(
        question="Do shadows slow the requests that clients wait for?",
        date=datetime.now(UTC).date().isoformat(),
        machine=machine(),
        documents_per_request=DOCUMENTS,
        took=took,
    )
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(asdict(result), indent=2) + "\n", encoding="utf-8")
    print_table(took)


if __name__ == "__main__":
    main()
