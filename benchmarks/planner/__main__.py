"""Does the planner predict what a real service does? Needs no GPU.

    python -m benchmarks.planner --json benchmarks/results/planner.json --case 1
    python -m benchmarks.planner --json benchmarks/results/planner.json

The first command measures one case and adds it to the file. If the measurement was interrupted, the
command continues it. The second command measures nothing: it repeats the predictions and prints the
table of all cases.

Each case (`cases`) consists of a traffic profile, which a seed determines, and of a real service in
the lab (`cluster.lab`), with simulated GPUs and one slow part (`services`). In each of five rounds
(`rounds`), the speeds of the parts are measured with requests that are not from the profile
(`calibration`). Then the profile's traffic is sent. The prediction uses the medians of the
calibrations, and random requests of the profile that differ from those sent.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.machine import machine
from benchmarks.planner.calibration import Calibration, median_of, profile
from benchmarks.planner.cases import SEED, Case, cases
from benchmarks.planner.prediction import predict
from benchmarks.planner.rounds import ROUNDS
from benchmarks.planner.sending import Measured
from benchmarks.planner.services import config
from benchmarks.simulated_lab import simulated_lab
from cluster.lab import plan, service

DOCUMENTS_ERROR_MAX, P99_ERROR_MAX = 0.15, 0.25
"""Highest relative errors that meet the goals of the planner."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Predictions of the planner, and measurements.")
    parser.add_argument("--json", type=Path, required=True, help="file with the results")
    parser.add_argument("--case", type=int, help="measure the case with this number, from 1")
    chosen = parser.parse_args()
    result = _read(chosen.json)
    known = cases(result["seed"])
    if chosen.case is not None:
        case = known[chosen.case - 1]
        found = result["cases"].setdefault(case.name, {"rounds": []})
        for each in rounds(chosen.case, case, len(found["rounds"])):
            found["rounds"].append(each)
            _write(result, chosen.json)
    for case in known:
        found = result["cases"].get(case.name, {"rounds": []})
        if found["rounds"]:
            found |= summary(case, found["rounds"])
    _write(result, chosen.json)
    print(table(result))


def _read(file: Path) -> dict[str, Any]:
    if file.exists():
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return found
    return {
        "question": "Does the planner predict what a real service does?",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": asdict(machine()),
        "seed": SEED,
        "cases": {},
    }


def _write(result: Mapping[str, Any], file: Path) -> None:
    file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def rounds(number: int, case: Case, done: int) -> Iterator[dict[str, Any]]:
    """Yield each round that is not in the file yet, from a new lab."""
    if done >= ROUNDS:
        return
    with simulated_lab(
        config(case),
        partial(print, flush=True),
        gpu_nodes=case.scorers,
        gpu_tokens_per_s=case.gpu_tokens_per_s,
    ) as lab:
        arguments = [str(lab.folder), str(SEED), str(number), str(done)]
        command = [sys.executable, "-m", "benchmarks.planner.rounds", *arguments]
        with subprocess.Popen(
            [*lab.entering(plan.CLIENT, ["--net"]), *command],
            env=service.environment(lab.folder, lab.token),
            stdout=subprocess.PIPE,
            text=True,
        ) as inside:
            assert inside.stdout is not None
            for line in inside.stdout:
                found = json.loads(line)
                print(f"{case.name}: {found['measured']}", flush=True)
                yield found
    if inside.returncode != 0:
        raise SystemExit("The case could not be measured; the messages above say why.")


def summary(case: Case, found: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the prediction and the medians of the measurements, with the errors."""
    calibration = median_of([Calibration(**each["calibration"]) for each in found])
    start_s = statistics.median(each["start_s"] for each in found)
    predicted = predict(case, profile(calibration, start_s))
    runs = [Measured(**each["measured"]) for each in found]
    documents_per_s, p50_s, p99_s = (
        statistics.median(getattr(each, name) for each in runs)
        for name in ("documents_per_s", "p50_s", "p99_s")
    )
    return {
        "throttled": case.throttled,
        "traffic": asdict(case.traffic),
        "scorers": case.scorers,
        "gpu_tokens_per_s": case.gpu_tokens_per_s,
        "seconds": case.seconds,
        "calibration": asdict(calibration),
        "predicted": asdict(predicted),
        "measured": {"documents_per_s": documents_per_s, "p50_s": p50_s, "p99_s": p99_s},
        "documents_error": predicted.documents_per_s / documents_per_s - 1,
        "p99_error": predicted.p99_s / p99_s - 1,
    }


def table(result: Mapping[str, Any]) -> str:
    """Return a table of all measured cases, in Markdown."""
    rows = [
        "| profile | arrivals | runs | documents/s, predicted | measured | error "
        "| p99, predicted | measured | error | limit, predicted | slow part |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in (case.name for case in cases(result["seed"])):
        each = result["cases"].get(name, {})
        if "predicted" not in each:
            continue
        predicted, observed = each["predicted"], each["measured"]
        burstiness = each["traffic"]["burstiness"]
        arrivals_of = "Poisson" if burstiness == 1 else f"gamma, {burstiness:g}"
        rows.append(
            f"| {name} | {arrivals_of}, {each['traffic']['requests_per_s']:g}/s "
            f"| {len(each['rounds'])} "
            f"| {predicted['documents_per_s']:.0f} | {observed['documents_per_s']:.0f} "
            f"| {_error(each['documents_error'], DOCUMENTS_ERROR_MAX)} "
            f"| {1_000 * predicted['p99_s']:,.0f} ms | {1_000 * observed['p99_s']:,.0f} ms "
            f"| {_error(each['p99_error'], P99_ERROR_MAX)} "
            f"| {predicted['bottleneck']} | {each['throttled']} |"
        )
    return "\n".join(rows)


def _error(error: float, most: float) -> str:
    return f"{error:+.0%}" if abs(error) <= most else f"**{error:+.0%}, missed**"


if __name__ == "__main__":
    main()
