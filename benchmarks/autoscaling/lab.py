"""Does the autoscaler follow a load across nodes?

    python -m benchmarks.autoscaling.lab --json benchmarks/results/autoscaling-lab.json \\
        --plot benchmarks/results/autoscaling-lab.png

The lab (`cluster.lab`) runs cluster/production.yaml on four GPU nodes with simulated GPUs, and
scales from 0 to 6 scorers, of which the last two find no room. The policy has delays of seconds
instead of minutes. `benchmarks.autoscaling.lab_load` sends the load in the network of the client.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import matplotlib as mpl
import yaml
from rich.console import Console
from rich.table import Table

from benchmarks.autoscaling.lab_load import FLOOR, GPU_TOKENS_PER_S, sections
from benchmarks.machine import machine
from benchmarks.simulated_lab import simulated_lab
from cluster.lab import plan, service
from cluster.lab.lab import Lab
from cluster.lab.namespaces import LabError

mpl.use("Agg")
from matplotlib import pyplot as plt

GPU_NODES = 4
SCORERS_MAX = 6
POLICY = {"delay_s": 1, "up_after_s": 1.5, "down_after_s": 25, "zero_after_s": 40}
START_S = 38.0
"""Estimated time from the start of this program until the load starts."""


def main() -> None:
    parser = argparse.ArgumentParser(description="The autoscaler on a cluster of several nodes.")
    names = [each.name for each in sections()]
    parser.add_argument("--section", action="append", choices=names, help="repeatable; all if none")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    parser.add_argument("--plot", type=Path, help="plot the result to this file")
    chosen = parser.parse_args()
    console = Console(highlight=False)
    sections_chosen = chosen.section or names
    with simulated_lab(
        scaled_config(sections_chosen),
        console.print,
        gpu_nodes=GPU_NODES,
        gpu_tokens_per_s=GPU_TOKENS_PER_S,
    ) as lab:
        result = json.loads(run_inside(lab, sections_chosen))
    result = {
        "question": "Does the autoscaler follow a load across nodes?",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": asdict(machine()),
        "policy": POLICY,
        "gpu_nodes": GPU_NODES,
        **result,
    }
    show(console, result)
    if chosen.json:
        chosen.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if chosen.plot:
        draw(result, chosen.plot)


def scaled_config(names: Sequence[str]) -> dict[str, Any]:
    """Return cluster/production.yaml with shorter delays, 0 to 6 scorers, and a floor."""
    config: dict[str, Any] = yaml.safe_load(service.PRODUCTION.read_text())
    floor_at = next((each.starts_s for each in sections(names) if each.name == FLOOR), 0.0)
    since = datetime.now(UTC) + timedelta(seconds=START_S + floor_at)
    floor = {"since": f"{since:%H:%M:%S}", "until": f"{since + timedelta(minutes=1):%H:%M:%S}"}
    scorers = config["applications"][0]
    scorers["autoscaling_policy"]["policy_kwargs"] = {**POLICY, "floors": [floor | {"replicas": 3}]}
    scorers["deployments"][0]["autoscaling_config"] |= {
        "min_replicas": 0,
        "initial_replicas": 1,
        "max_replicas": SCORERS_MAX,
    }
    return config


def run_inside(lab: Lab, names: Sequence[str]) -> bytes:
    """Send the load in the network of the client host."""
    command = [sys.executable, "-m", "benchmarks.autoscaling.lab_load", str(lab.folder), *names]
    done = subprocess.run(
        [*lab.entering(plan.CLIENT, ["--net"]), *command],
        env=service.environment(lab.folder, lab.token),
        stdout=subprocess.PIPE,
        check=False,
    )
    if done.returncode != 0:
        raise LabError("The load could not be sent; the messages above say why.")
    return done.stdout


def show(console: Console, result: dict[str, Any]) -> None:
    table = Table("section", "scorers", "answers", "p50", "p99", "Retry-After")
    for each in result["sections"]:
        table.add_row(
            each["name"],
            each["scorers"],
            str(each["answers"]),
            f"{each['p50_s']} s",
            f"{each['p99_s']} s",
            each["retry_after_s"],
        )
    console.print(table)
    console.print({name: result[name] for name in ("up_s", "from_zero_s", "no_room_lines")})


def draw(result: dict[str, Any], path: Path) -> None:
    """Plot the load and the running scorers over time."""
    figure, axes = plt.subplots(figsize=(11, 3.4), layout="constrained")
    seconds = [each["at_s"] for each in result["samples"]]
    for name, label in (("load_gpus", "load, in GPUs"), ("running", "running scorers")):
        values = [each[name] for each in result["samples"]]
        axes.step(seconds, values, where="post", label=label)
    for section in result["sections"]:
        axes.axvline(section["starts_s"], color="0.8", linewidth=0.8)
        axes.text(section["starts_s"] + 1, SCORERS_MAX + 0.15, section["name"], fontsize=7)
    axes.set_xlabel("seconds")
    axes.legend(loc="center right")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
