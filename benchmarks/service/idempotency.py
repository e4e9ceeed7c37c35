"""What do idempotency keys cost? Compares requests with and without one on the whole service.

    python -m benchmarks.service.idempotency --json benchmarks/results/idempotency.json

Turns with and without keys alternate on one service, with 8 clients and 50 documents in each
request. All results are returned, so that a stored outcome has 50 scores. As in
`benchmarks.service.metering`, the kept share of the throughput is also computed from CPU time,
because the machine's speed varies between turns by more than a key costs. With ``--tiny``, the
model takes almost no time, so that only the rest of the service matters.
"""

import argparse
import json
import statistics
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.progress import track

from benchmarks.machine import Machine, machine
from benchmarks.service.metering import MODEL, Turn, service_with, turn_of
from benchmarks.service.overhead import CLIENTS, DOCUMENTS
from testkit.postgres import Postgres, running
from testkit.service import Service


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of keys on one database."""

    database: str
    keyed_documents_per_s: list[float]
    plain_documents_per_s: list[float]
    share_kept: float
    """Ratio of the medians of documents/s, with to without keys."""

    scorer_cpu_ms: float
    """The scorer's CPU time per document: median of all turns."""

    keyed_other_cpu_ms: float
    plain_other_cpu_ms: float
    """CPU time per document of the rest of the service and the database: medians of its turns."""

    share_kept_by_cpu: float


@dataclass(frozen=True, slots=True)
class Result:
    """The result of the benchmark."""

    question: str
    date: str
    machine: Machine
    model: str
    clients: int
    documents_per_request: int
    scorer_threads: int
    costs: list[Cost]


def a_key() -> dict[str, str]:
    return {"Idempotency-Key": str(uuid.uuid4())}


WAYS: tuple[Callable[[], dict[str, str]], ...] = (a_key, dict)


def cost(
    database: str, service: Service, server: Postgres | None, turns: int, seconds: float
) -> Cost:
    """Measure both kinds of requests in turns, with alternating order."""
    took: tuple[list[Turn], list[Turn]] = ([], [])
    for number in track(range(turns + 1), database):
        both = list(zip(WAYS, took, strict=True))
        for headers, its in both if number % 2 else reversed(both):
            processes = server.processes() if server else ()
            its.append(turn_of(service, processes, seconds, number, headers))
    keyed, plain = (its[1:] for its in took)  # The first turns warm up.
    speed, plain_speed = (
        [round(turn.documents_per_s, 1) for turn in its] for its in (keyed, plain)
    )
    scorer_ms = statistics.median(turn.scorer_cpu_ms for turn in (*keyed, *plain))
    with_ms, without_ms = (
        statistics.median(turn.other_cpu_ms for turn in its) for its in (keyed, plain)
    )
    return Cost(
        database,
        speed,
        plain_speed,
        round(statistics.median(speed) / statistics.median(plain_speed), 3),
        round(scorer_ms, 2),
        round(with_ms, 2),
        round(without_ms, 2),
        round((scorer_ms + without_ms) / (scorer_ms + with_ms), 3),
    )


def measure(folder: Path, source: str, threads: int, turns: int, seconds: float) -> list[Cost]:
    costs = []
    with running(durable=True) as server:
        databases = {
            "sqlite": (f"sqlite:///{folder}/rerank.db", None),
            "postgresql": (server.url(), server),
        }
        for database, (url, measured) in databases.items():
            with service_with(folder / database, source, url, threads, metering=True) as service:
                costs.append(cost(database, service, measured, turns, seconds))
    return costs


def main() -> None:
    parser = argparse.ArgumentParser(description="Requests with and without idempotency keys.")
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=10, help="duration of each turn")
    parser.add_argument("--tiny", action="store_true", help="use a model that takes almost no time")
    parser.add_argument(
        "--scorer-threads",
        type=int,
        default=1,
        help="1 leaves a core to everything else, as a GPU does; 0 takes all cores",
    )
    parser.add_argument("--json", type=Path, help="write everything to this file")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, source = Path(name), MODEL
        if chosen.tiny:
            from testkit.tiny_models import build  # noqa: PLC0415 - imports torch

            source = str(build(folder / "tiny"))
        costs = measure(folder, source, chosen.scorer_threads, chosen.turns, chosen.seconds)
    result = Result(
        question="What do idempotency keys cost?",
        date=datetime.now(UTC).date().isoformat(),
        machine=machine(),
        model="tiny" if chosen.tiny else MODEL,
        clients=CLIENTS,
        documents_per_request=DOCUMENTS,
        scorer_threads=chosen.scorer_threads,
        costs=costs,
    )
    text = json.dumps(asdict(result), indent=2)
    print(text)
    if chosen.json is not None:
        chosen.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
