"""A real Prometheus (Debian's package `prometheus`) for tests and pictures."""

import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from serve_app.deployments.local_ray import free_port
from testkit.service import ROOT, wait_for

FOLDER = ROOT / "cluster/prometheus"
RULES = ("objectives.yaml", "alerts.yaml")

_DURATION = re.compile(r"(?<=[\[\s])(\d+)([smhd])\b")
_SECONDS_COMPARED = re.compile(r"(_seconds\) > )(\d+)")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def faster(rules: str, factor: int) -> str:
    """Return Prometheus rules with all durations divided by ``factor``.

    Durations are ranges (``[5m]``), the values of ``for``, and bounds of gauges in seconds. Names
    of recorded rules stay.
    """

    def shorter(match: re.Match[str]) -> str:
        milliseconds = 1_000 * int(match[1]) * _SECONDS[match[2]] // factor
        return f"{milliseconds}ms"

    rules = _SECONDS_COMPARED.sub(lambda match: f"{match[1]}{int(match[2]) / factor:g}", rules)
    return _DURATION.sub(shorter, rules)


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A running Prometheus."""

    address: str

    def get(self, path: str, **parameters: str) -> Any:
        response = httpx.get(f"{self.address}/api/v1/{path}", params=parameters, timeout=30)
        answer = response.json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the series of an instant query, each with ``metric`` and ``value``."""
        found: list[dict[str, Any]] = self.get("query", query=expression)["result"]
        return found

    def query_range(
        self, expression: str, start: float, end: float, step_s: float
    ) -> list[dict[str, Any]]:
        """Return the series between two Unix times, each with ``metric`` and ``values``."""
        found: list[dict[str, Any]] = self.get(
            "query_range", query=expression, start=f"{start}", end=f"{end}", step=f"{step_s}"
        )["result"]
        return found

    def alerts(self, state: str = "firing") -> set[str]:
        """Return the names of the alerts in ``state``."""
        return {
            alert["labels"]["alertname"]
            for alert in self.get("alerts")["alerts"]
            if alert["state"] == state
        }

    def targets_are_up(self) -> bool:
        targets = self.get("targets", state="active")["activeTargets"]
        return bool(targets) and all(target["health"] == "up" for target in targets)


def static(targets: Mapping[str, str], scrape_s: float) -> str:
    """Return a configuration for ``targets``, the address of the metrics by the name of the job.

    Args:
        scrape_s: Seconds between two scrapes, and between two evaluations of the rules.
    """
    return _config(
        scrape_s, [{"job_name": job, **_target(address)} for job, address in targets.items()]
    )


def federated(source: Prometheus, metric: str, scrape_s: float) -> str:
    """Return a configuration that takes one metric from another Prometheus."""
    job = {
        "job_name": "federated",
        "metrics_path": "/federate",
        "params": {"match[]": [metric]},
        "honor_labels": True,
        **_target(source.address.removeprefix("http://")),
    }
    return _config(scrape_s, [job])


def _target(address: str) -> dict[str, Any]:
    return {"static_configs": [{"targets": [address]}]}


def _config(scrape_s: float, jobs: list[dict[str, Any]]) -> str:
    interval = f"{round(1_000 * scrape_s)}ms"
    config = {
        "global": {
            "scrape_interval": interval,
            "scrape_timeout": interval,
            "evaluation_interval": interval,
        },
        "rule_files": list(RULES),
        "scrape_configs": jobs,
    }
    return yaml.safe_dump(config)


@contextmanager
def running(folder: Path, config: str, factor: int = 1) -> Iterator[Prometheus]:
    """Run Prometheus with the service's rules while the block runs.

    Args:
        folder: It gets all files.
        factor: Durations in the rules are divided by it.
    """
    for name in RULES:
        (folder / name).write_text(faster((FOLDER / name).read_text(), factor))
    config_file = folder / "prometheus.yaml"
    config_file.write_text(config)
    address = f"127.0.0.1:{free_port()}"
    command = [
        "prometheus",
        f"--config.file={config_file}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address={address}",
        "--log.level=warn",
    ]
    with (folder / "prometheus.txt").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    prometheus = Prometheus(f"http://{address}")
    try:
        wait_for(lambda: _is_ready(prometheus), what="the start of Prometheus")
        yield prometheus
    finally:
        process.terminate()
        process.wait(timeout=60)


def _is_ready(prometheus: Prometheus) -> bool:
    try:
        return httpx.get(f"{prometheus.address}/-/ready", timeout=30).status_code == 200
    except httpx.TransportError:
        return False
