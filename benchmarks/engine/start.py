"""How long does a scorer take from the start of its process until it is warm?

    python -m benchmarks.engine.start --json benchmarks/results/start.json

Scorers of the whole service are killed, and Ray starts others in their place: one, or three at
once. The models are `embedded` and a model of 12 layers (`minilm.py`). It also measures the memory
of the service with one scorer, after its start and after some requests.

Runs are added to the JSON file, so that two checkouts can be measured in turns into one file, with
a name of each in ``--version``.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from benchmarks.engine import minilm
from benchmarks.machine import machine
from benchmarks.service.overhead import memory_mib
from serve_app.deployments.local_ray import free_port
from serve_app.domain.model import EMBEDDED
from serve_app.engine.export_cache import EXPORTS
from testkit.load import Group, Target, bodies, send_each
from testkit.service import ROOT, Service, wait_for

SCORERS = (1, 3)
MODELS = (EMBEDDED, "12-layers")
PARTS = ("process_s", "load_s", "warm_up_s")
"""Fields of the event `scorer_warm`: until the replica is created, loading, warm-up."""

SETTLE_S = 4.0
REQUESTS = 12


@contextmanager
def running(source: str, scorers: int) -> Iterator[Service]:
    config = yaml.safe_load((ROOT / "cluster/local.yaml").read_text())
    scorer_application, gateways = config["applications"]
    checkpoint = {"source": source}
    scorer_application["args"]["checkpoint"] = checkpoint
    scorer_application["deployments"][0]["num_replicas"] = scorers
    gateways["deployments"][0]["user_config"]["models"][0]["checkpoint"] = checkpoint
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "var" / EXPORTS).mkdir(parents=True)  # Empty, unlike the shared one.
        service = Service.start(Path(folder), config, free_port())
        try:
            yield service
        finally:
            service.stop()


def starts(service: Service) -> list[dict[str, Any]]:
    """Return the events `scorer_warm` so far, by time."""
    lines = {
        line
        for path in (service.var_dir / "ray").rglob("*scorer*.log")
        for line in path.read_text(errors="replace").splitlines()
        if '"scorer_warm"' in line
    }
    return sorted(map(json.loads, lines), key=lambda event: str(event["asctime"]))


def restarted(service: Service, scorers: int) -> dict[str, Any]:
    """Kill all scorers; return the figures of the slowest of the new ones."""
    time.sleep(SETTLE_S)
    before, killed_at = len(starts(service)), time.perf_counter()
    for process in service.replicas("embedded"):
        process.kill()
    wait_for(lambda: len(starts(service)) == before + scorers, 120, "the start of all scorers")
    wall_s = time.perf_counter() - killed_at
    slowest = max(starts(service)[before:], key=_total_s)
    return {part: slowest[part] for part in PARTS} | {
        "total_s": _total_s(slowest),
        "from_kill_until_warm_s": round(wall_s, 2),
    }


def _total_s(event: dict[str, Any]) -> float:
    return float(round(sum(event[part] for part in PARTS), 3))


def memory(service: Service) -> dict[str, dict[str, float]]:
    time.sleep(SETTLE_S)
    after_start = memory_mib(service)
    group = Group("all", Target(f"{service.address}/v1/rerank", "m", service.key), 1, 50)
    send_each(group, bodies(group, seed=1)[:REQUESTS])
    return {"after_start": after_start, "after_requests": memory_mib(service)}


def measure(source: str, scorers: int, turns: int) -> dict[str, Any]:
    with running(source, scorers) as service:
        first = max(starts(service), key=_total_s)
        return {
            "first": {part: first[part] for part in PARTS} | {"total_s": _total_s(first)},
            "memory_mib": memory(service) if scorers == 1 else None,
            "restarts": [restarted(service, scorers) for _ in range(turns)],
        }


def main() -> None:
    parser = argparse.ArgumentParser(description="Start and memory of scorers.")
    parser.add_argument("--version", default="new", help="name of this checkout in the file")
    parser.add_argument("--model", choices=MODELS, help="only this model")
    parser.add_argument("--turns", type=int, default=3, help="restarts of each service")
    parser.add_argument("--json", type=Path, help="add the runs to this file")
    chosen = parser.parse_args()
    result: dict[str, Any] = {"machine": asdict(machine()), "runs": []}
    if chosen.json is not None and chosen.json.exists():
        result = json.loads(chosen.json.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        minilm.write(Path(folder))
        for model in [chosen.model] if chosen.model else MODELS:
            for scorers in SCORERS:
                run: dict[str, Any] = {"version": chosen.version, "model": model}
                source = EMBEDDED if model == EMBEDDED else folder
                run |= {"scorers": scorers} | measure(source, scorers, chosen.turns)
                print(json.dumps(run), flush=True)
                result["runs"].append(run)
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
