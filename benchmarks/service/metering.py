"""What does metering cost a client? Compares the whole service with and without its ledger.

    python -m benchmarks.service.metering --json benchmarks/results/metering.json

Two services on this machine differ only in their ledger: one is deployed from
`benchmarks.service.unmetered`. Two loads alternate between them: 8 clients with 50 documents per
request for some seconds, and one client with one document per request. The databases are SQLite and
PostgreSQL, both with fsync. The model is `embedded`; with ``--tiny``, it is so small that only the
rest of the service matters. A bare commit is one small durable INSERT into the same database, in
the same run. With ``--scorer-threads 1``, the model leaves a core to everything else, as it does on
a GPU.

The machine's speed varies between turns by more than a ledger costs. So the kept share is also
computed from CPU time, the limit when the cores are busy: that of gateway, HTTP proxy and database
per document, with and without metering, plus that of the model, which is the same in both.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from rich.progress import track

from benchmarks.ledger.one_client import bare_commits, longer_ms, timed
from benchmarks.machine import Machine, machine
from benchmarks.service.overhead import CLIENTS, DOCUMENTS, cpu_parts, request_body, served
from loadtests.traffic import Traffic
from serve_app.deployments.local_ray import free_port
from testkit.load import cpu_s
from testkit.postgres import Postgres, running
from testkit.service import Service, deployment, model, serve_config

REQUESTS = 300
FIRST_REQUESTS = 120
"""Requests that are not counted. Until SQLite's log has reached its full size once, each commit
extends it and takes twice as long."""

MODEL = "embedded"


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of the ledger on one database."""

    database: str
    metered_documents_per_s: list[float]
    unmetered_documents_per_s: list[float]
    share_kept: float
    """Ratio of the medians of documents/s, metered to unmetered."""

    scorer_cpu_ms: float
    """The scorer's CPU time per document: median of all turns."""

    metered_other_cpu_ms: float
    unmetered_other_cpu_ms: float
    """CPU time per document of the rest of the service and the database: medians of its turns."""

    share_kept_by_cpu: float

    metered_p50_ms: float
    unmetered_p50_ms: float
    bare_commit_ms: float
    added_in_bare_commits: float
    """Additional wait of one client with one document, by `one_client.longer_ms`."""


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
    """Threads of the scorer; 0 is all cores, which it shares with the gateway and the database."""

    costs: Sequence[Any]


@dataclass(frozen=True, slots=True)
class Turn:
    """The speed and CPU use of one service in one turn."""

    documents_per_s: float
    scorer_cpu_ms: float
    """CPU time per document, as the next field."""

    other_cpu_ms: float


def turn_of(
    service: Service,
    database: Sequence[psutil.Process],
    seconds: float,
    n: int,
    headers: Callable[[], dict[str, str]] = dict,
) -> Turn:
    """Run the ``n``-th turn, with `CLIENTS` clients.

    Args:
        database: The database's processes, if it has any.
        headers: Returns additional headers for each request.
    """
    before = _cpu_s(service, database)
    documents, took_s = served(service, seconds, n, headers)
    scorer, other = (
        1_000 * (after - so_far) / documents
        for after, so_far in zip(_cpu_s(service, database), before, strict=True)
    )
    return Turn(documents / took_s, scorer, other)


def _cpu_s(service: Service, database: Sequence[psutil.Process]) -> tuple[float, float]:
    """Return the CPU time used so far by the scorer, and by everything else."""
    scorer, other = cpu_parts(service, MODEL)
    return scorer, other + cpu_s(database)


def cost(
    database: str,
    services: tuple[Service, Service],
    url: str,
    server: Postgres | None,
    turns: int,
    seconds: float,
) -> Cost:
    """Measure both services in turns, with alternating order."""
    took: tuple[list[Turn], list[Turn]] = ([], [])
    for number in track(range(turns), database):
        both = list(zip(services, took, strict=True))
        for service, its in both if number % 2 else reversed(both):
            processes = server.processes() if server and service is services[0] else ()
            its.append(turn_of(service, processes, seconds, number))
    with bare_commits(url) as commit:
        one_client(services, commit, FIRST_REQUESTS)
        metered_ms, unmetered_ms, bare_ms = one_client(services, commit, REQUESTS)
    commit_ms = statistics.median(bare_ms)
    speed, free_speed = ([round(turn.documents_per_s, 1) for turn in its] for its in took)
    scorer_ms = statistics.median(turn.scorer_cpu_ms for its in took for turn in its)
    with_ms, without_ms = (statistics.median(turn.other_cpu_ms for turn in its) for its in took)
    return Cost(
        database,
        speed,
        free_speed,
        round(statistics.median(speed) / statistics.median(free_speed), 3),
        round(scorer_ms, 2),
        round(with_ms, 2),
        round(without_ms, 2),
        round((scorer_ms + without_ms) / (scorer_ms + with_ms), 3),
        round(statistics.median(metered_ms), 1),
        round(statistics.median(unmetered_ms), 1),
        round(commit_ms, 3),
        round(longer_ms(metered_ms, unmetered_ms) / commit_ms, 2),
    )


def one_client(
    services: tuple[Service, Service], commit: Callable[[], None], requests: int
) -> tuple[list[float], list[float], list[float]]:
    """Return the milliseconds of each request to each service, and of each bare commit.

    The services alternate in order. Bare commits run between requests, at the pace of one client,
    at which they are slower than back to back.
    """
    traffic = Traffic(seed=1)
    took_ms: tuple[list[float], list[float], list[float]] = ([], [], [])

    with services[0].client() as first, services[1].client() as second:
        both = list(zip((first, second), took_ms[:2], strict=True))
        for number in track(range(requests), "one client"):
            body = request_body(traffic, 1)
            for client, times in both if number % 2 else reversed(both):
                with timed(times):
                    client.post("/v1/rerank", json=body).raise_for_status()
            with timed(took_ms[2]):
                commit()
    return took_ms


@contextmanager
def service_with(
    folder: Path, source: str, url: str, threads: int, *, metering: bool
) -> Iterator[Service]:
    """Start a service with one gateway and one scorer with ``threads`` threads."""
    folder.mkdir(parents=True)
    config: dict[str, Any] = serve_config(
        [model(MODEL, source, scorer_threads=threads)], deployment(1)
    )
    if not metering:
        config["applications"][0]["import_path"] = "benchmarks.service.unmetered:gateways"
    service = Service.start(folder, config, free_port(), RERANK_DATABASE_URL=url)
    try:
        yield service
    finally:
        service.stop()


def measure(folder: Path, source: str, threads: int, turns: int, seconds: float) -> list[Cost]:
    costs = []
    with running(durable=True) as server:
        server.execute("CREATE DATABASE unmetered")
        urls = {
            "sqlite": (f"sqlite:///{folder}/on.db", f"sqlite:///{folder}/off.db", None),
            "postgresql": (server.url(), server.url("unmetered"), server),
        }
        for database, (on, off, beside) in urls.items():
            with (
                service_with(
                    folder / database / "on", source, on, threads, metering=True
                ) as metered,
                service_with(
                    folder / database / "off", source, off, threads, metering=False
                ) as free,
            ):
                costs.append(cost(database, (metered, free), on, beside, turns, seconds))
    return costs


def run(
    question: str,
    description: str,
    measure: Callable[[Path, str, int, int, float], Sequence[Any]],
    *,
    turns: int,
    scorer_threads: int,
) -> None:
    """Read the options of the command line, and print and write what ``measure`` returns.

    Args:
        measure: Takes a folder, a model source, scorer threads, turns, and seconds of a turn.
        turns: Default of the option.
        scorer_threads: Default of the option.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--turns", type=int, default=turns)
    parser.add_argument("--seconds", type=float, default=10, help="duration of each turn")
    parser.add_argument("--tiny", action="store_true", help="use a model that takes almost no time")
    parser.add_argument(
        "--scorer-threads",
        type=int,
        default=scorer_threads,
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
        question=question,
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


def main() -> None:
    run(
        "What does metering cost a client?",
        "The service with and without its ledger.",
        measure,
        turns=5,
        scorer_threads=0,
    )


if __name__ == "__main__":
    main()
