"""What do idempotency keys cost? Compares requests with and without one on the whole service.

    python -m benchmarks.service.idempotency --json benchmarks/results/idempotency.json

Turns with and without keys alternate on one service, with 8 clients and 50 documents in each
request. All results are returned, so that a stored outcome has 50 scores. As in
`benchmarks.service.metering`, the kept share of the throughput is also computed from CPU time,
because the machine's speed varies between turns by more than a key costs. With ``--tiny``, the
model takes almost no time, so that only the rest of the service matters.
"""

import statistics
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.progress import track

from benchmarks.service.metering import Turn, run, service_with, turn_of
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
    run(
        "What do idempotency keys cost?",
        "Requests with and without idempotency keys.",
        measure,
        turns=6,
        scorer_threads=1,
    )


if __name__ == "__main__":
    main()
