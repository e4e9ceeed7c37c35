"""A Ray cluster of one node, from ``ray start``, for ``serve deploy``."""

import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from serve_app.cli.up import read_switches
from serve_app.deployments.local_ray import free_port, local_environment, short_path
from testkit.service import ROOT, environment, run_command, wait_for

BIN = Path(sys.executable).parent
Change = Callable[[list[dict[str, Any]]], None]
"""Changes the applications of a config file."""


@dataclass(frozen=True)
class Cluster:
    """A Ray head node on this machine."""

    dashboard: str
    http_port: int
    metrics_port: int
    env: Mapping[str, str]
    folder: Path

    def serve(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [BIN / "serve", *arguments, "--address", self.dashboard],
            env=dict(self.env),
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
        )

    def deploy(self, name: str, change: Change | None = None) -> subprocess.CompletedProcess[str]:
        """Deploy a config file of ``cluster/`` on this cluster's port, after ``change``."""
        config = yaml.safe_load((ROOT / "cluster" / name).read_text())
        config["http_options"]["port"] = self.http_port
        if change is not None:
            change(config["applications"])
        path = self.folder / name
        path.write_text(yaml.safe_dump(config))
        return self.serve("deploy", str(path))

    def gateway_log(self, event: str) -> str:
        """Return the log lines of the gateways with this event."""
        return "".join(
            line
            for path in self.folder.glob("ray/session_2*/logs/serve/replica_*gateway*.log")
            for line in path.read_text().splitlines()
            if event in line
        )

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    def command(self, *arguments: str) -> str:
        """Run ``rerank-serve`` on the ledger and return what it prints."""
        return run_command(self.env, *arguments).strip()

    def replicas(self, application: str) -> list[str]:
        """Return the ids of running replicas."""
        (deployment,) = self.applications()[application]["deployments"].values()
        return [each["replica_id"] for each in deployment["replicas"] if each["state"] == "RUNNING"]

    def is_running(self) -> bool:
        applications = self.applications().values()
        return bool(applications) and all(each["status"] == "RUNNING" for each in applications)

    def applications(self) -> dict[str, Any]:
        response = httpx.get(
            f"{self.dashboard}/api/serve/applications/",
            headers={"Authorization": f"Bearer {self.env['RAY_AUTH_TOKEN']}"},
            timeout=30,
        )
        response.raise_for_status()
        found: dict[str, Any] = response.json()["applications"]
        return found


def user_config(applications: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the live settings of ``cluster/local.yaml``."""
    found: dict[str, Any] = applications[1]["deployments"][0]["user_config"]
    return found


@contextmanager
def serve_cluster(folder: Path) -> Iterator[Cluster]:
    """Run a cluster during the block. All its files are in ``folder``."""
    dashboard_port, http_port, metrics_port = free_port(), free_port(), free_port()
    with short_path(folder / "ray") as ray_dir, short_path(folder / "run") as run_dir:
        env = environment(folder / "var") | read_switches(ROOT / "cluster/ray.env")
        env |= local_environment(run_dir) | {"RAY_AUTH_TOKEN": secrets.token_hex(32)}
        env["RERANK_DATABASE_URL"] = f"sqlite:///{folder / 'ledger.db'}"
        command: list[str] = [
            *(str(BIN / "ray"), "start", "--head", "--block", "--num-cpus=8"),
            *(f"--port={free_port()}", f"--temp-dir={ray_dir}"),
            *("--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard_port}"),
            *(f"--ray-client-server-port={free_port()}", "--object-store-memory=100000000"),
            *(
                f"--dashboard-agent-listen-port={free_port()}",
                f"--metrics-export-port={metrics_port}",
            ),
        ]
        with (folder / "ray.txt").open("wb") as output:
            head = subprocess.Popen(command, env=env, stdout=output, stderr=subprocess.STDOUT)
        cluster = Cluster(
            f"http://127.0.0.1:{dashboard_port}", http_port, metrics_port, env, folder
        )
        try:
            wait_for(lambda: cluster.serve("status").returncode == 0, 180, "the cluster")
            yield cluster
        finally:
            family = [psutil.Process(head.pid), *psutil.Process(head.pid).children(recursive=True)]
            for process in family:
                with suppress(
                    psutil.NoSuchProcess
                ):  # Replicas that fail to start disappear between calls.
                    process.kill()
            head.wait(timeout=60)
