"""How long does the autoscaling policy take in the controller, with many replicas?

    python -m benchmarks.autoscaling.decisions --json benchmarks/results/decisions.json

Ray's controller calls the policy of each model ten times a second, on the event loop that also
does everything else. Each scorer reports its own figures, and the backlog of each gateway that
sent it a portion in the last second.
"""

import argparse
import json
import random
import statistics
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ray.serve._private.common import DeploymentID, ReplicaID, TimeStampedValue
from ray.serve.config import AutoscalingConfig, AutoscalingContext
from rich.console import Console
from rich.table import Table

from benchmarks.machine import machine
from serve_app.deployments.autoscaling import (
    BUSY_RATIO_STAT,
    INFLIGHT_TOKENS_STAT,
    TOKENS_PER_S_STAT,
    BacklogPolicy,
)
from serve_app.scaling.backlogs import PREFIX

FLEETS = ((10, 4), (100, 32), (1_000, 300))
"""Scorers and gateways."""

PORTIONS_PER_S = 48
"""Portions that a scorer receives per second: a V100 scores the published 960 documents/s, and each
request has 20 documents."""

REPORTS = 5
"""Reports of each figure that Ray keeps: one per second during ``look_back_period_s``."""

CALLS = 20
STATS = {INFLIGHT_TOKENS_STAT: 10_000.0, BUSY_RATIO_STAT: 0.7, TOKENS_PER_S_STAT: 64_000.0}
CALLS_PER_S = 10
NOW = 1_700_000_000.0


@dataclass(frozen=True, slots=True)
class Row:
    """The time of one call of the policy for a fleet of this size."""

    scorers: int
    gateways: int
    milliseconds: float
    """Median CPU time of a call."""

    core_share: float
    """Share of one core for ten calls a second."""


def context(scorers: int, gateways: int) -> AutoscalingContext:
    """Return what Ray passes to the policy."""
    deployment = DeploymentID("scorer", "model")
    replicas = [ReplicaID(f"scorer-{number}", deployment) for number in range(scorers)]
    metrics: dict[str, dict[ReplicaID, list[TimeStampedValue]]] = {}
    source = random.Random(1)
    for replica in replicas:
        heard = {f"{PREFIX}{source.randrange(gateways)}" for _ in range(PORTIONS_PER_S)}
        for stat, value in (*STATS.items(), *((each, 5_000.0) for each in heard)):
            points = [TimeStampedValue(NOW - at, value) for at in range(REPORTS, 0, -1)]
            metrics.setdefault(stat, {})[replica] = points
    fields: dict[str, Any] = {
        "deployment_id": deployment,
        "deployment_name": "scorer",
        "app_name": "model",
        "current_num_replicas": scorers,
        "target_num_replicas": scorers,
        "running_replicas": replicas,
        "total_num_requests": 2 * scorers,
        "total_queued_requests": 0,
        "aggregated_metrics": {},
        "raw_metrics": metrics,
        "capacity_adjusted_min_replicas": 1,
        "capacity_adjusted_max_replicas": 2 * scorers,
        "policy_state": {},
        "last_scale_up_time": None,
        "last_scale_down_time": None,
        "current_time": NOW,
        "config": AutoscalingConfig(target_ongoing_requests=10),
    }
    return AutoscalingContext(**fields)


def measure(scorers: int, gateways: int) -> Row:
    policy = BacklogPolicy()
    given = context(scorers, gateways)
    times = []
    for _ in range(CALLS):
        began = time.process_time()
        targets, _ = policy({given.deployment_id: given})
        times.append(time.process_time() - began)
        assert targets, "the policy failed"
    seconds = statistics.median(times)
    return Row(scorers, gateways, round(1_000 * seconds, 3), round(CALLS_PER_S * seconds, 4))


def main() -> None:
    parser = argparse.ArgumentParser(description="The policy with many replicas.")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    chosen = parser.parse_args()
    rows = [measure(*fleet) for fleet in FLEETS]
    table = Table("scorers", "gateways", "ms per call", "share of a core")
    for row in rows:
        table.add_row(
            f"{row.scorers:,}",
            f"{row.gateways:,}",
            f"{row.milliseconds:,}",
            f"{row.core_share:.1%}",
        )
    Console().print(table)
    if chosen.json:
        result = {
            "question": "How long does the autoscaling policy take with many replicas?",
            "date": datetime.now(UTC).date().isoformat(),
            "machine": asdict(machine()),
            "rows": [asdict(row) for row in rows],
        }
        chosen.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
