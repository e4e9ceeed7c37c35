"""How long do requests wait for scorers if portions go to the least loaded one? Needs no GPU.

    python -m benchmarks.service.routing --json benchmarks/results/routing.json

Two services run side by side, each with one gateway, SQLite and three scorers with simulated GPUs.
One of them routes portions with Ray's own router. They take turns with the same requests, which
arrive at random times and use about three quarters of the scorers' time. The GPUs are so slow that
the processes, which share the cores, are never the limit.
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.handle import DeploymentHandle
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.machine import Machine, machine
from benchmarks.planner.sending import Measured, measured, send
from serve_app import app
from serve_app.deployments import gateway, gateway_models
from serve_app.planning.arrivals import arrivals
from serve_app.planning.profiles import PAIR_TOKENS, Traffic
from serve_app.planning.simulation import WARM_UP_S
from serve_app.settings import SCORER
from testkit.service import Service, deployment, model, serve_config
from testkit.simulated_service import simulated_service

SCORERS = 3
GPU_TOKENS_PER_S = 20_000
DOCUMENTS = 50
LOAD = 0.74
LEAST_LOADED, RAYS = "least loaded", "Ray's router"


@dataclass(frozen=True, slots=True)
class Turn:
    """Both services under the same requests."""

    least_loaded: Measured
    rays: Measured


@dataclass(frozen=True, slots=True)
class Result:
    """The result of the benchmark."""

    question: str
    date: str
    machine: Machine
    scorers: int
    documents_per_request: int
    requests_per_s: float
    turns: list[Turn]
    p50_ratio: float
    """Median over the turns of the service with Ray's router to the other, as the next one."""

    p99_ratio: float


def plain_handle(application: str) -> DeploymentHandle:
    return DeploymentHandle(SCORER, application)


class GatewayWithRaysRouter(gateway.Gateway.func_or_class):  # type: ignore[misc, name-defined]  # Any to mypy
    """`Gateway` with plain handles of the scorers."""

    async def __init__(self, *args: Any) -> None:  # type: ignore[misc]  # Ray awaits it
        gateway_models.scorer_handle = plain_handle  # type: ignore[attr-defined]  # imported there
        await super().__init__(*args)


def gateways(args: dict[str, Any]) -> Application:
    """Build the application as `serve_app.app.gateways`, but with Ray's own router."""
    app.Gateway = serve.deployment(GatewayWithRaysRouter)  # type: ignore[attr-defined]  # imported there
    return app.gateways(args)


def config(router: str) -> dict[str, Any]:
    """Return the Serve config file's content of one service."""
    scorers = deployment(SCORERS, max_ongoing_requests=2_048)
    found = serve_config(
        [model("embedded", "embedded", scorers)], deployment(1, max_ongoing_requests=512)
    )
    if router == RAYS:
        found["applications"][0]["import_path"] = f"{__spec__.name}:{gateways.__name__}"
    return found


def traffic() -> Traffic:
    requests_per_s = LOAD * SCORERS * GPU_TOKENS_PER_S / (DOCUMENTS * PAIR_TOKENS)
    return Traffic(round(requests_per_s, 2), {DOCUMENTS: 1.0})


def measure(turns: int, seconds: float) -> list[Turn]:
    with ExitStack() as stack:
        services = {
            router: stack.enter_context(simulated_service(config(router), GPU_TOKENS_PER_S))
            for router in (LEAST_LOADED, RAYS)
        }
        for service in services.values():  # The gateways learn the scorers' speed.
            send(service.address, service.key, arrivals(traffic(), WARM_UP_S, seed=0), seed=0)
        return [
            Turn(*(took(services[each], seconds, number) for each in (LEAST_LOADED, RAYS)))
            for number in track(range(1, turns + 1), "turns")
        ]


def took(service: Service, seconds: float, seed: int) -> Measured:
    requests = arrivals(traffic(), seconds, seed)
    return measured(send(service.address, service.key, requests, seed), seconds)


def print_table(turns: Sequence[Turn]) -> None:
    table = Table("least loaded: p50, p99, s", "documents/s", "Ray's router: p50, p99, s", "")
    for each in turns:
        table.add_row(
            *(
                cell
                for found in (each.least_loaded, each.rays)
                for cell in (
                    f"{found.p50_s:.3f}, {found.p99_s:.3f}",
                    f"{found.documents_per_s:.0f}",
                )
            )
        )
    Console(width=110).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description="The least loaded scorer against Ray's router.")
    parser.add_argument("--turns", type=int, default=3, help="turns of each service")
    parser.add_argument("--seconds", type=float, default=30, help="duration of a turn")
    parser.add_argument("--json", type=Path, help="write everything to this file")
    chosen = parser.parse_args()
    turns = measure(chosen.turns, chosen.seconds)
    result = Result(
        question="How long do requests wait for scorers if portions go to the least loaded one?",
        date=datetime.now(UTC).date().isoformat(),
        machine=machine(),
        scorers=SCORERS,
        documents_per_request=DOCUMENTS,
        requests_per_s=traffic().requests_per_s,
        turns=turns,
        p50_ratio=round(statistics.median(t.rays.p50_s / t.least_loaded.p50_s for t in turns), 2),
        p99_ratio=round(statistics.median(t.rays.p99_s / t.least_loaded.p99_s for t in turns), 2),
    )
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(asdict(result), indent=2) + "\n", encoding="utf-8")
    print_table(turns)
    print(f"Ray's router took {result.p50_ratio} (p50) and {result.p99_ratio} (p99) times as long.")


if __name__ == "__main__":
    main()
