"""Measure a case in the network of the lab's client. `benchmarks.planner` starts it.

    python -m benchmarks.planner.rounds FOLDER SEED CASE FIRST

It prints each round, from number ``FIRST`` on, as a line of JSON.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.planner import scaling
from benchmarks.planner.calibration import calibrate
from benchmarks.planner.cases import Case, cases
from benchmarks.planner.sending import measured, send
from benchmarks.planner.services import slowed
from cluster.lab.lab import Lab
from serve_app.planning.arrivals import arrivals

ROUNDS = 5


def rounds(case: Case, lab: Lab, first: int) -> Iterator[dict[str, Any]]:
    """Yield the calibration and the measurement of each round."""
    with slowed(case, lab) as running:
        start_s = scaling.start_s(case, running) if case.autoscaled else 0.0
        for number in range(first, ROUNDS):
            if case.autoscaled:
                scaling.wait_for_one(running)
            calibration = calibrate(case, running, seed=100 + number)
            requests = arrivals(case.traffic, case.seconds, number, case.load)
            answers = send(running.address, running.key, requests, seed=number)
            yield {
                "calibration": asdict(calibration),
                "start_s": start_s,
                "measured": asdict(measured(answers, case.seconds)),
            }


def main(folder: str, seed: str, case: str, first: str) -> None:
    lab = Lab.load(Path(folder))
    lab.in_user_namespace = False  # This process is already in the user namespace, if there is one.
    for each in rounds(cases(int(seed))[int(case) - 1], lab, int(first)):
        sys.stdout.write(json.dumps(each) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
