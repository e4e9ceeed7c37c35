"""`serve deploy` accepts the project's config files on a cluster from `ray start`."""

import json
import sqlite3
import stat
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

from serve_app.domain.canary import is_chosen
from testkit import prometheus
from testkit.prometheus import Prometheus
from testkit.serve_cluster import Change, Cluster, serve_cluster, user_config
from testkit.service import wait_for

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with serve_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


def test_the_local_file_deploys_and_answers(cluster: Cluster) -> None:
    def ready() -> Any:
        with suppress(httpx.TransportError):  # HAProxy may start after the replicas.
            answer = httpx.get(f"{cluster.address}/ready", timeout=30)
            return answer.status_code == 200 and answer.json()
        return None

    deployed = cluster.deploy("local.yaml")

    assert deployed.returncode == 0, deployed.stderr
    wait_for(cluster.is_running, 240, "the deployment")
    assert wait_for(ready, 120, "readiness")["ready"] is True


@contextmanager
def scraped(cluster: Cluster, folder: Path, factor: int = 1) -> Iterator[Prometheus]:
    """Run Prometheus with ``cluster/prometheus/prometheus.yaml`` while the block runs.

    For ``factor`` see `prometheus.running`.
    """
    config = (prometheus.FOLDER / "prometheus.yaml").read_text()
    for documented, here in (
        ("http://127.0.0.1:8265", cluster.dashboard),
        (":8080", f":{cluster.metrics_port}"),
        (":9101", f":{cluster.env['RAY_SERVE_HAPROXY_METRICS_PORT']}"),
        ("scrape_interval: 15s", "scrape_interval: 1s"),
        ("evaluation_interval: 15s", "evaluation_interval: 1s"),
    ):
        assert documented in config
        config = config.replace(documented, here)
    (folder / "ray-token").write_text(cluster.env["RAY_AUTH_TOKEN"])
    with prometheus.running(folder, config, factor) as running:
        yield running


def test_prometheus_finds_ray_and_haproxy_on_the_nodes(cluster: Cluster, tmp_path: Path) -> None:
    with scraped(cluster, tmp_path) as running:
        for job, metric in (
            ("ray", "ray_serve_deployment_status"),
            ("haproxy", "haproxy_process_uptime_seconds"),
            # No exporter of a GPU's metrics runs here: the attempt alone is visible, as up == 0.
            ("dcgm", "up"),
        ):
            wait_for(partial(running.query, f'{metric}{{job="{job}"}}'), 120, metric)


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
    def limit(batch_tokens_max: int) -> Change:
        return lambda applications: applications[0]["deployments"][0].update(
            user_config={"batch_tokens_max": batch_tokens_max}
        )

    before = cluster.replicas("embedded")

    assert cluster.deploy("local.yaml", limit(4096)).returncode == 0
    wait_for(cluster.is_running, 120, "the new limit")
    assert cluster.replicas("embedded") == before

    assert cluster.deploy("local.yaml", limit(5)).returncode == 0
    logs = cluster.folder / "ray"
    wait_for(
        lambda: any(
            "user_config_refused" in path.read_text()
            for path in logs.glob("session_2*/logs/serve/replica_*scorer*.log")
        ),
        120,
        "the refusal",
    )
    wait_for(cluster.is_running, 120, "the application")
    assert cluster.replicas("embedded") == before


class Clients:
    """A client that sends one request after the other in the background."""

    def __init__(self, address: str, key: str) -> None:
        self.statuses: list[int] = []
        self._url, self._key = address, key
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        headers = {"Authorization": f"Bearer {self._key}"}
        body = {"model": "embedded", "query": "q", "documents": ["a", "b"]}
        with httpx.Client(base_url=self._url, headers=headers, timeout=60) as client:
            while not self._stop.is_set():
                self.statuses.append(client.post("/v1/rerank", json=body).status_code)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


@pytest.fixture(scope="module")
def key(cluster: Cluster) -> str:
    cluster.command("ledger", "migrate")
    cluster.command("tenants", "add", "acme", "--credit", "10")
    return cluster.command("keys", "create", "acme")


def raise_price(applications: list[dict[str, Any]]) -> None:
    live = user_config(applications)
    live["models"][0] |= {"price_micro_dollars_per_document": 11, "aliases": ["acme/new-name"]}
    live["documents_per_request_max"] = 3


def add_model(applications: list[dict[str, Any]]) -> None:
    checkpoint = {"source": "embedded", "pair_tokens_max": 64}
    scorers = deepcopy(applications[0])
    applications.append(scorers | {"name": "short", "args": {"checkpoint": checkpoint}})
    user_config(applications)["models"].append({"id": "short", "checkpoint": checkpoint})


def unknown_setting(applications: list[dict[str, Any]]) -> None:
    user_config(applications)["documents_max"] = 3


def test_live_settings_and_models_change_without_replacing_a_replica(
    cluster: Cluster, key: str
) -> None:
    def rerank(model: str, documents: int = 1) -> httpx.Response:
        body = {"model": model, "query": "q", "documents": ["a"] * documents}
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.post(f"{cluster.address}/v1/rerank", json=body, headers=headers, timeout=60)

    def until(expected: int, model: str, documents: int = 1) -> None:
        wait_for(
            lambda: rerank(model, documents).status_code == expected, 120, f"{expected} for {model}"
        )

    def replicas() -> list[list[str]]:
        return [cluster.replicas("embedded"), cluster.replicas("rerank")]

    assert cluster.deploy("local.yaml").returncode == 0
    wait_for(cluster.is_running, 120, "the application")
    before = replicas()
    assert rerank("acme/new-name").status_code == 404

    with Clients(cluster.address, key) as clients:
        assert cluster.deploy("local.yaml", raise_price).returncode == 0
        until(200, "acme/new-name")
        assert rerank("embedded").json()["meta"]["charge_micro_dollars"] == 11
        assert rerank("embedded", documents=4).status_code == 413

        assert cluster.deploy("local.yaml", unknown_setting).returncode == 0
        wait_for(
            lambda: "documents_max" in cluster.gateway_log("user_config_refused"),
            120,
            "the refusal",
        )
        assert rerank("acme/new-name").status_code == 200, "the previous settings are kept"

        assert cluster.deploy("local.yaml", add_model).returncode == 0
        until(200, "short")
        assert rerank("acme/new-name").status_code == 404
        assert rerank("embedded", documents=4).status_code == 200

        assert cluster.deploy("local.yaml").returncode == 0
        until(404, "short")
        wait_for(lambda: "short" not in cluster.applications(), 120, "the end of the application")

    # A gateway uses new settings a moment before Serve counts it as running again.
    wait_for(lambda: replicas() == before, 120, "the same replicas, all of them running")
    assert set(clients.statuses) == {200}


def with_canary(**settings: float) -> Change:
    """Return a change that adds a canary, which reads less of a pair."""
    checkpoint = {"source": "embedded", "pair_tokens_max": 64}

    def change(applications: list[dict[str, Any]]) -> None:
        scorers = deepcopy(applications[0])
        applications.append(scorers | {"name": "embedded-2", "args": {"checkpoint": checkpoint}})
        model = user_config(applications)["models"][0]
        model["canary"] = {"application": "embedded-2", "checkpoint": checkpoint, **settings}

    return change


def separating_share(one: str, other: str) -> float:
    """Return a share that includes only one of two tenants."""
    shares = (number / 1_000 for number in range(1_001))
    return next(
        share
        for share in shares
        if is_chosen(share, "embedded", one) != is_chosen(share, "embedded", other)
    )


@dataclass
class Accounts:
    """Two tenants of a cluster, by name, and their charges."""

    cluster: Cluster
    keys: dict[str, str]

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.cluster.folder / "ledger.db")) as connection:
            return connection.execute(sql).fetchall()

    def revisions(self) -> dict[str, str]:
        """Send a request of each tenant, and return the revisions in its charges."""
        body = {"model": "embedded", "query": "q", "documents": ["a word " * 100, "b"]}
        found = {}
        for name, key in self.keys.items():
            headers = {"Authorization": f"Bearer {key}"}
            url = f"{self.cluster.address}/v1/rerank"
            answer = httpx.post(url, json=body, headers=headers, timeout=60)
            assert answer.status_code == 200, answer.text
            request_id = answer.json()["id"]
            sql = f"SELECT revision FROM charges WHERE request_id = '{request_id}'"  # noqa: S608 - our id
            ((found[name],),) = self.rows(sql)
        return found

    def wait_for(self, **expected: str) -> None:
        wait_for(lambda: self.revisions() == expected, 120, f"{expected}")


def test_a_canary_is_tried_promoted_and_aborted_without_replacing_a_replica(
    cluster: Cluster, key: str
) -> None:
    cluster.command("tenants", "add", "bolt", "--credit", "10")
    accounts = Accounts(cluster, {"acme": key, "bolt": cluster.command("keys", "create", "bolt")})
    ids = {name: str(tenant) for tenant, name in accounts.rows("SELECT id, name FROM tenants")}
    share = separating_share(ids["acme"], ids["bolt"])
    file = str(cluster.folder / "local.yaml")

    def replicas() -> list[list[str]]:
        return [cluster.replicas(name) for name in ("embedded", "embedded-2", "rerank")]

    def canary(command: str) -> None:
        options = ("--config", file, "--address", cluster.dashboard)
        cluster.command("canary", command, "embedded", *options)

    assert cluster.deploy("local.yaml", with_canary(shadow_share=1)).returncode == 0
    wait_for(
        lambda: "embedded-2" in cluster.applications() and cluster.is_running(), 240, "the canary"
    )
    before = replicas()
    pairs = "SELECT DISTINCT live, canary, live_tokens > canary_tokens FROM shadow_comparisons"

    def is_shadowed() -> bool:
        assert accounts.revisions() == {"acme": "embedded", "bolt": "embedded"}
        return accounts.rows(pairs) == [("embedded", "embedded-2", 1)]

    wait_for(is_shadowed, 120, "a shadow")

    with Clients(cluster.address, key) as clients:
        assert cluster.deploy("local.yaml", with_canary(share=share)).returncode == 0
        revision = {
            name: "embedded-2" if is_chosen(share, "embedded", tenant) else "embedded"
            for name, tenant in ids.items()
        }
        accounts.wait_for(**revision)

        canary("promote")
        accounts.wait_for(acme="embedded-2", bolt="embedded-2")

        assert cluster.deploy("local.yaml", with_canary(share=share)).returncode == 0
        accounts.wait_for(**revision)
        canary("abort")
        accounts.wait_for(acme="embedded", bolt="embedded")

    # A gateway uses new settings a moment before Serve counts it as running again.
    wait_for(lambda: replicas() == before, 120, "the same replicas, all of them running")
    assert set(clients.statuses) == {200}
    # The model of an earlier test may have had a request that its replicas started too late for.
    open_or_void = "SELECT * FROM reservations WHERE model = 'embedded' AND state <> 'committed'"
    assert accounts.rows(open_or_void) == []
    report = json.loads(cluster.command("canary", "report", "embedded", "--json"))
    assert {each["revision"] for each in report["requests"]} == {"embedded", "embedded-2"}
    assert [each["canary"]["revision"] for each in report["shadows"]] == ["embedded-2"]


def test_a_model_that_cannot_start_raises_an_alert(cluster: Cluster, tmp_path: Path) -> None:
    def add_broken_model(applications: list[dict[str, Any]]) -> None:
        checkpoint = {"source": str(tmp_path / "missing"), "pair_tokens_max": 64}
        scorers = deepcopy(applications[0])
        applications.append(scorers | {"name": "broken", "args": {"checkpoint": checkpoint}})

    with scraped(cluster, tmp_path, factor=60) as running:
        assert cluster.deploy("local.yaml", add_broken_model).returncode == 0
        wait_for(lambda: "RerankDeploymentFails" in running.alerts(), 240, "the alert")


def test_the_production_file_is_accepted_unchanged(cluster: Cluster) -> None:
    deployed = cluster.deploy("production.yaml")

    assert deployed.returncode == 0, deployed.stderr
    model = "ms-marco-MiniLM-L12-v2"
    wait_for(
        lambda: cluster.applications().get(model, {}).get("deployments"), 120, "the new deployment"
    )
    config = cluster.applications()[model]["deployments"]["scorer"]["deployment_config"]
    assert config["autoscaling_config"]["max_replicas"] == 16
    assert config["ray_actor_options"]["accelerator_type"] == "V100"
    assert config["user_config"] == {"batch_tokens_max": 32768}
    # Until it is removed, the model of the previous test has the traceback of its failure.
    wait_for(lambda: "broken" not in cluster.applications(), 120, "the end of the broken model")
    assert json.dumps(cluster.applications()).count("Traceback") == 0
