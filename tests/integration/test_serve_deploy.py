"""`serve deploy` accepts the project's config files on a cluster from `ray start`."""

import json
import secrets
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from serve_app.cli.up import read_switches
from serve_app.deployments.local_ray import free_port, local_environment, short_path
from testkit.service import ROOT, environment, wait_for

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Cluster:
    """A Ray head node on this machine."""

    dashboard: str
    http_port: int
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
            timeout=120,
        )

    def deploy(self, name: str, **scorer: Any) -> subprocess.CompletedProcess[str]:
        """Deploy a config file on this test's port, with changes to its scorer."""
        config = yaml.safe_load((ROOT / "cluster" / name).read_text())
        config["http_options"]["port"] = self.http_port
        config["applications"][0]["deployments"][1] |= scorer
        path = self.folder / name
        path.write_text(yaml.safe_dump(config))
        return self.serve("deploy", str(path))

    def replicas(self, deployment: str) -> list[str]:
        """Return the ids of running replicas."""
        found = self.application()["deployments"][deployment]
        return [each["replica_id"] for each in found["replicas"] if each["state"] == "RUNNING"]

    def application(self) -> dict[str, Any]:
        response = httpx.get(
            f"{self.dashboard}/api/serve/applications/",
            headers={"Authorization": f"Bearer {self.env['RAY_AUTH_TOKEN']}"},
            timeout=10,
        )
        response.raise_for_status()
        found: dict[str, Any] = response.json()["applications"].get("rerank", {})
        return found


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    dashboard_port, http_port = free_port(), free_port()
    with short_path(folder / "ray") as ray_dir, short_path(folder / "run") as run_dir:
        env = environment(folder / "var") | read_switches(ROOT / "cluster/ray.env")
        env |= local_environment(run_dir) | {"RAY_AUTH_TOKEN": secrets.token_hex(32)}
        env["RERANK_DATABASE_URL"] = f"sqlite:///{folder / 'ledger.db'}"
        command: list[str] = [
            *(str(BIN / "ray"), "start", "--head", "--block", "--num-cpus=8"),
            *(f"--port={free_port()}", f"--temp-dir={ray_dir}"),
            *("--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard_port}"),
            *(f"--ray-client-server-port={free_port()}", "--object-store-memory=100000000"),
            f"--dashboard-agent-listen-port={free_port()}",
        ]
        with (folder / "ray.txt").open("wb") as output:
            head = subprocess.Popen(command, env=env, stdout=output, stderr=subprocess.STDOUT)
        cluster = Cluster(f"http://127.0.0.1:{dashboard_port}", http_port, env, folder)
        try:
            wait_for(lambda: cluster.serve("status").returncode == 0, 90, "the cluster")
            yield cluster
        finally:
            family = [psutil.Process(head.pid), *psutil.Process(head.pid).children(recursive=True)]
            for process in family:
                with suppress(
                    psutil.NoSuchProcess
                ):  # Replicas that fail to start disappear between calls.
                    process.kill()
            head.wait(timeout=30)


def test_the_local_file_deploys_and_answers(cluster: Cluster) -> None:
    deployed = cluster.deploy("local.yaml")

    assert deployed.returncode == 0, deployed.stderr
    wait_for(lambda: cluster.application().get("status") == "RUNNING", 120, "the deployment")
    ready = wait_for(
        lambda: httpx.get(f"http://127.0.0.1:{cluster.http_port}/ready", timeout=10).json(),
        30,
        "an answer",
    )
    assert ready["ready"] is True


def test_other_users_cannot_read_logs_or_reach_the_admin_socket(cluster: Cluster) -> None:
    sessions = list((cluster.folder / "ray").glob("session_2*"))
    sockets = list((cluster.folder / "run").rglob("admin.sock"))

    assert sessions
    assert sockets
    for folder in [*sessions, *(socket.parent for socket in sockets)]:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(socket.stat().st_mode) for socket in sockets} == {0o600}


def test_a_batch_limit_changes_on_the_running_replica_and_a_bad_one_is_logged(
    cluster: Cluster,
) -> None:
    before = cluster.replicas("scorer-embedded")

    assert cluster.deploy("local.yaml", user_config={"batch_tokens_max": 4096}).returncode == 0
    wait_for(lambda: cluster.application().get("status") == "RUNNING", 60, "the new limit")
    assert cluster.replicas("scorer-embedded") == before

    assert cluster.deploy("local.yaml", user_config={"batch_tokens_max": 5}).returncode == 0
    logs = cluster.folder / "ray"
    wait_for(
        lambda: any(
            "user_config_refused" in path.read_text()
            for path in logs.glob("session_2*/logs/serve/replica_*scorer*.log")
        ),
        60,
        "the refusal",
    )
    wait_for(lambda: cluster.application().get("status") == "RUNNING", 60, "the application")
    assert cluster.replicas("scorer-embedded") == before


def test_the_production_file_is_accepted_unchanged(cluster: Cluster) -> None:
    deployed = cluster.deploy("production.yaml")

    assert deployed.returncode == 0, deployed.stderr
    wait_for(
        lambda: "scorer-ms-marco-MiniLM-L12-v2" in cluster.application().get("deployments", {}),
        60,
        "the new deployments",
    )
    config = cluster.application()["deployments"]["scorer-ms-marco-MiniLM-L12-v2"][
        "deployment_config"
    ]
    assert config["autoscaling_config"]["max_replicas"] == 16
    assert config["ray_actor_options"]["accelerator_type"] == "V100"
    assert config["user_config"] == {"batch_tokens_max": 32768}
    assert json.dumps(cluster.application()).count("Traceback") == 0
