"""How soon are new live settings in force on every gateway? Needs no GPU.

    python -m benchmarks.service.live_settings --json benchmarks/results/live-settings.json

`serve deploy` changes the price and the limits of a running service with eight gateways, the
``max_replicas`` of ``cluster/production.yaml``, while a client sends requests. Each gateway logs
when it uses its new settings. All processes share the machine's cores. An error is raised if a
request fails or a replica is replaced.
"""

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from rich.progress import track

from benchmarks.machine import Machine, machine
from testkit.serve_cluster import Cluster, serve_cluster, user_config
from testkit.service import wait_for

GATEWAYS = 8
PAUSE_S = 0.2
"""Pause between two requests of the client."""

FIRST_PRICE, LAST_PRICE = 10, 15
TIMEOUT_S = 300
IN_FORCE = "user_config_in_force"


@dataclass(frozen=True, slots=True)
class Change:
    """Seconds from the start of one `serve deploy`."""

    command_s: float
    """When the command ended."""

    first_gateway_s: float
    all_gateways_s: float
    """When the first and the last gateway used the new settings."""


@dataclass(frozen=True, slots=True)
class Result:
    """The result of the benchmark."""

    question: str
    date: str
    machine: Machine
    gateways: int
    changes: list[Change]
    requests: int
    """Requests of the client. None failed."""


def with_price(price: int, applications: list[dict[str, Any]]) -> None:
    """Set the number of gateways, the price and a limit. A `testkit.serve_cluster.Change`."""
    deployment = applications[1]["deployments"][0]
    deployment["num_replicas"] = GATEWAYS
    live = user_config(applications)
    live["models"][0]["price_micro_dollars_per_document"] = price
    live["documents_per_request_max"] = 100 + price


def change(cluster: Cluster, price: int) -> Change:
    """Deploy another price, and wait until all gateways use it."""
    before = cluster.gateway_log(IN_FORCE).count(IN_FORCE)
    times: list[float] = []
    began = time.monotonic()

    def all_changed() -> bool:
        changed = cluster.gateway_log(IN_FORCE).count(IN_FORCE) - before
        times.extend([time.monotonic() - began] * (changed - len(times)))
        return changed == GATEWAYS

    with ThreadPoolExecutor(1) as thread:
        command = thread.submit(deploy, cluster, price)
        wait_for(all_changed, TIMEOUT_S, "the change")
        return Change(*(round(at, 2) for at in (command.result(), times[0], times[-1])))


def deploy(cluster: Cluster, price: int) -> float:
    """Run `serve deploy`, and return the seconds that it took."""
    began = time.monotonic()
    deployed = cluster.deploy("local.yaml", partial(with_price, price))
    assert deployed.returncode == 0, deployed.stderr
    return time.monotonic() - began


@contextmanager
def client(cluster: Cluster, key: str) -> Iterator[list[int]]:
    """Send requests during the block. Yield the list of their charges."""
    charges: list[int] = []
    stop = threading.Event()

    def send() -> None:
        body = {"model": "embedded", "query": "q", "documents": ["a"]}
        headers = {"Authorization": f"Bearer {key}"}
        with httpx.Client(base_url=cluster.address, headers=headers, timeout=60) as http:
            while not stop.wait(PAUSE_S):
                answer = http.post("/v1/rerank", json=body).raise_for_status()
                charges.append(answer.json()["meta"]["charge_micro_dollars"])

    with ThreadPoolExecutor(1) as thread:
        sending = thread.submit(send)
        try:
            yield charges
        finally:
            stop.set()
        sending.result()


def measure(folder: Path) -> tuple[list[Change], int]:
    """Return the times of the changes, and the number of requests."""
    with serve_cluster(folder) as cluster:
        cluster.command("ledger", "migrate")
        cluster.command("tenants", "add", "acme", "--credit", "10")
        key = cluster.command("keys", "create", "acme")
        deploy(cluster, FIRST_PRICE)
        replicas = partial(cluster.replicas, "rerank")
        wait_for(cluster.is_running, TIMEOUT_S, "the start")
        wait_for(lambda: len(replicas()) == GATEWAYS, TIMEOUT_S, "the start of all gateways")
        before = replicas()
        with client(cluster, key) as charges:
            wait_for(lambda: charges, TIMEOUT_S, "the first answer")
            found = [
                change(cluster, price)
                for price in track(range(FIRST_PRICE + 1, LAST_PRICE + 1), "changes")
            ]
            sent = len(charges)
            wait_for(lambda: len(charges) > sent + 1, TIMEOUT_S, "another answer")
        assert charges[-1] == LAST_PRICE
        wait_for(lambda: replicas() == before, TIMEOUT_S, "the same replicas, all of them running")
        return found, len(charges)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time until live settings are in force.")
    parser.add_argument("--json", type=Path, help="write everything to this file")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found, requests = measure(Path(folder))
    result = Result(
        question="How soon are new live settings in force on every gateway?",
        date=datetime.now(UTC).date().isoformat(),
        machine=machine(),
        gateways=GATEWAYS,
        changes=found,
        requests=requests,
    )
    text = json.dumps(asdict(result), indent=2) + "\n"
    if chosen.json is not None:
        chosen.json.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
