"""What does metering cost a client? The whole service with its ledger, beside one without.

    python -m benchmarks.metering --json benchmarks/results/metering.json

Two services on this machine, alike but for the setting `metering`, are asked in turns: by 8 clients
with 50 documents each, and by one client with one document. On SQLite and on PostgreSQL, both with
fsync; the model is `embedded`, or with ``--tiny`` one so small that the rest of the service is all
there is. A bare commit is one small durable INSERT into the same database, in the same run.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.progress import track

from benchmarks.ledger import bare_commit_ms
from benchmarks.machine import Machine, machine
from benchmarks.postgres import running
from benchmarks.service import CLIENTS, DOCUMENTS, latency, service_speed
from serve_app.deployments.local_ray import free_port
from tests.integration.conftest import deployment, serve_config
from tests.integration.service import Service

REQUESTS = 100
MODEL = "embedded"


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one database's ledger."""

    database: str
    metered_documents_per_s: list[float]
    unmetered_documents_per_s: list[float]
    share_kept: float
    """Medians: metered in unmetered."""

    metered_p50_ms: list[float]
    unmetered_p50_ms: list[float]
    bare_commit_ms: float
    added_in_bare_commits: float
    """What one client with one document waits longer."""


@dataclass(frozen=True, slots=True)
class Result:
    """The answer, for people and for files."""

    question: str
    date: str
    machine: Machine
    model: str
    clients: int
    documents_per_request: int
    costs: list[Cost]


def cost(
    database: str, services: tuple[Service, Service], bare_ms: float, turns: int, seconds: float
) -> Cost:
    """Both services in turns; the metered one first."""
    speeds: tuple[list[float], list[float]] = ([], [])
    times: tuple[list[float], list[float]] = ([], [])
    for turn in track(range(turns), database):
        for service, speed, time in zip(services, speeds, times, strict=True):
            speed.append(round(service_speed(service, seconds, turn), 1))
            with service.client() as client:
                time.append(latency(client, 1, REQUESTS).p50_ms)
    added_ms = statistics.median(times[0]) - statistics.median(times[1])
    return Cost(
        database,
        *speeds,
        round(statistics.median(speeds[0]) / statistics.median(speeds[1]), 3),
        *times,
        bare_ms,
        round(added_ms / bare_ms, 2),
    )


@contextmanager
def service_with(folder: Path, source: str, url: str, *, metering: bool) -> Iterator[Service]:
    """One gateway and one scorer."""
    folder.mkdir(parents=True)
    config: dict[str, Any] = serve_config(
        [{"id": MODEL, "source": source}],
        [deployment("gateway", 1), deployment("scorer-embedded", 1)],
        metering=metering,
    )
    service = Service.start(folder, config, free_port(), RERANK_DATABASE_URL=url)
    try:
        yield service
    finally:
        service.stop()


def measure(folder: Path, source: str, turns: int, seconds: float) -> list[Cost]:
    """Both databases, one after the other."""
    costs = []
    with running(durable=True) as server:
        server.execute("CREATE DATABASE unmetered")
        urls = {
            "sqlite": (f"sqlite:///{folder}/on.db", f"sqlite:///{folder}/off.db"),
            "postgresql": (server.url(), server.url("unmetered")),
        }
        for database, (on, off) in urls.items():
            with (
                service_with(folder / database / "on", source, on, metering=True) as metered,
                service_with(folder / database / "off", source, off, metering=False) as free,
            ):
                costs.append(cost(database, (metered, free), bare_commit_ms(on), turns, seconds))
    return costs


def main() -> None:
    parser = argparse.ArgumentParser(description="The service with and without its ledger.")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10, help="of each turn")
    parser.add_argument("--tiny", action="store_true", help="a model that takes no time")
    parser.add_argument("--json", type=Path, help="write everything to this file")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = MODEL
        if chosen.tiny:
            from tests.tiny_models import build  # noqa: PLC0415 - imports torch

            source = str(build(folder / "tiny"))
        costs = measure(folder, source, chosen.turns, chosen.seconds)
    result = Result(
        question="What does metering cost a client?",
        date=datetime.now(UTC).date().isoformat(),
        machine=machine(),
        model="tiny" if chosen.tiny else MODEL,
        clients=CLIENTS,
        documents_per_request=DOCUMENTS,
        costs=costs,
    )
    text = json.dumps(asdict(result), indent=2)
    print(text)
    if chosen.json is not None:
        chosen.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
