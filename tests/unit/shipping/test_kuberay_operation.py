"""The manifests for KubeRay: recovery, upgrades, probes, monitoring, machines and versions."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.kuberay.__main__ import CLUSTER, FOLDER
from testkit.service import ROOT
from tests.support.manifests import (
    Manifest,
    cluster_of,
    of_kind,
    pods,
    problems,
    ray_service,
    render,
    rendered,
    serve_config,
)

pytestmark = pytest.mark.slow

WORKERS = ("gateways", "v100")
MONITORING = FOLDER / "components/prometheus-operator"


@pytest.fixture(scope="module", params=["one-v100", "fleet"])
def overlay(request: pytest.FixtureRequest) -> list[Manifest]:
    return rendered(request.param)


def labels_of_group(objects: list[Manifest], group: str) -> dict[str, str]:
    """Return the labels of the pods of a group of workers, with those that KubeRay adds."""
    (found,) = (e for e in cluster_of(objects)["workerGroupSpecs"] if e["groupName"] == group)
    added = {"ray.io/group": group, "ray.io/node-type": "worker", "ray.io/is-ray-node": "yes"}
    return {**found["template"]["metadata"]["labels"], **added}


def test_redis_keeps_the_state_of_the_head(overlay: list[Manifest]) -> None:
    options = cluster_of(overlay)["gcsFaultToleranceOptions"]
    (redis,) = (each["spec"] for each in of_kind(overlay, "StatefulSet"))
    (service,) = of_kind(overlay, "Service")
    (container,) = redis["template"]["spec"]["containers"]

    (port,) = service["spec"]["ports"]
    assert options["redisAddress"] == f"{service['metadata']['name']}:{port['port']}"
    assert service["spec"]["selector"].items() <= redis["template"]["metadata"]["labels"].items()
    assert options["redisPassword"]["valueFrom"] == container["env"][0]["valueFrom"]
    assert {"--appendonly", "--requirepass"} <= set(container["args"])
    assert {each["mountPath"] for each in container["volumeMounts"]} == {"/data"}


def test_the_second_version_of_the_autoscaler_adds_pods(overlay: list[Manifest]) -> None:
    cluster = cluster_of(overlay)

    assert cluster["enableInTreeAutoscaling"]
    assert cluster["autoscalerOptions"]["version"] == "v2"


def test_an_upgrade_of_the_fleet_moves_requests_step_by_step() -> None:
    """KubeRay's operator refuses such an upgrade without a gateway class or the autoscaler."""
    strategy = ray_service(rendered("fleet"))["spec"]["upgradeStrategy"]
    options = strategy["clusterUpgradeOptions"]

    assert strategy["type"] == "NewClusterWithIncrementalUpgrade"
    assert options["gatewayClassName"] == "istio"
    assert 0 < options["stepSizePercent"] <= options["maxSurgePercent"] < 100
    assert options["intervalSeconds"] > 0
    assert cluster_of(rendered("fleet"))["enableInTreeAutoscaling"]


def test_one_v100_is_never_upgraded_to_a_second_cluster() -> None:
    spec = ray_service(rendered("one-v100"))["spec"]

    assert spec["upgradeStrategy"] == {"type": "None"}


def test_requests_enter_only_through_workers_with_a_healthy_haproxy(
    overlay: list[Manifest],
) -> None:
    assert ray_service(overlay)["spec"]["excludeHeadPodFromServeSvc"]
    for group in WORKERS:
        (container,) = pods(overlay)[group]["containers"]
        ports = {each["name"]: each["containerPort"] for each in container["ports"]}
        ready = container["readinessProbe"]["httpGet"]
        assert (ready["path"], ports[ready["port"]]) == ("/-/healthz", 8000)
        assert container["livenessProbe"]["httpGet"] == {"path": "/api/healthz", "port": 52365}


def test_a_drain_of_machines_leaves_a_replica_of_each_deployment() -> None:
    objects = rendered("fleet")
    replicas = {
        deployment["name"]: deployment["autoscaling_config"]["min_replicas"]
        for application in serve_config(objects)["applications"]
        for deployment in application["deployments"]
    }
    budgets = {
        each["metadata"]["name"]: each["spec"] for each in of_kind(objects, "PodDisruptionBudget")
    }

    assert set(budgets) == {"gateways", "scorers"}
    for name, group, deployment in (
        ("gateways", "gateways", "gateway"),
        ("scorers", "v100", "scorer"),
    ):
        selected = budgets[name]["selector"]["matchLabels"].items()
        chosen = [each for each in WORKERS if selected <= labels_of_group(objects, each).items()]
        assert chosen == [group]
        assert 0 < budgets[name]["minAvailable"] < replicas[deployment]


def test_the_ingress_serves_each_host_with_tls(overlay: list[Manifest]) -> None:
    (ingress,) = (each["spec"] for each in of_kind(overlay, "Ingress"))

    hosts = {host for each in ingress["tls"] for host in each["hosts"]}
    assert {rule["host"] for rule in ingress["rules"]} == hosts
    assert all(each["secretName"] for each in ingress["tls"])


@pytest.mark.parametrize("cloud", ["gke", "eks"])
def test_scorers_run_on_machines_with_a_v100(cloud: str) -> None:
    content = yaml.safe_load((FOLDER / f"components/{cloud}/kustomization.yaml").read_text())
    operations = yaml.safe_load(content["patches"][0]["patch"])
    v100 = pods(rendered("fleet"))["v100"]
    group = cluster_of(rendered("fleet"))["workerGroupSpecs"][1]

    assert operations[0]["op"] == "test"
    assert operations[0]["value"] == group["groupName"]
    assert re.search("nvidia-tesla-v100|p3\\.2xlarge", str(operations[1]["value"]))
    assert v100["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert group["resources"]["accelerator_type:V100"] == "1"


def test_the_manifests_name_the_locked_version_of_ray(overlay: list[Manifest]) -> None:
    for name in ("requirements.txt", "cluster/images/gateway.txt"):
        (locked,) = re.findall(r"^ray==(\S+)", (ROOT / name).read_text(), re.MULTILINE)
        assert cluster_of(overlay)["rayVersion"] == locked


def test_all_other_images_have_a_version(overlay: list[Manifest]) -> None:
    (redis,) = of_kind(overlay, "StatefulSet")
    images = {
        container["image"]
        for pod in [*pods(overlay).values(), redis["spec"]["template"]["spec"]]
        for container in pod["containers"]
    }

    ours = {"rerank-serve/gateway", "rerank-serve/scorer-v100"}
    assert images > ours
    assert all(re.search(r":\d+\.\d+", image) for image in images - ours)


def monitoring(kind: str) -> Any:
    (found,) = of_kind(rendered("example"), kind)
    assert found["metadata"]["namespace"] == "rerank"
    return found["spec"]


def test_the_operator_of_prometheus_gets_all_rules() -> None:
    names = ("objectives.yaml", "alerts.yaml")
    files = [yaml.safe_load((CLUSTER / "prometheus" / name).read_text()) for name in names]

    assert monitoring("PrometheusRule") == {"groups": [g for each in files for g in each["groups"]]}


def test_prometheus_scrapes_every_pod_of_ray_as_it_does_without_kubernetes() -> None:
    objects = rendered("example")
    monitor = monitoring("PodMonitor")
    config = yaml.safe_load((CLUSTER / "prometheus/prometheus.yaml").read_text())
    head = cluster_of(objects)["headGroupSpec"]["template"]["metadata"]["labels"]
    ray = {"ray.io/is-ray-node": "yes"}  # KubeRay's label on all its pods
    endpoints = {each["port"]: each for each in monitor["podMetricsEndpoints"]}
    numbers = set()

    for labels in ({**head, **ray}, *(labels_of_group(objects, each) for each in WORKERS)):
        assert monitor["selector"]["matchLabels"].items() <= labels.items()
    for pod in pods(objects).values():
        ports = {each["name"]: each["containerPort"] for each in pod["containers"][0]["ports"]}
        numbers |= {ports[name] for name in endpoints}
    jobs = {
        rule["replacement"]
        for each in endpoints.values()
        for rule in each["relabelings"]
        if rule["targetLabel"] == "job"
    }

    assert numbers == {8080, 9101}  # those that the network policies open for monitoring
    assert jobs == {each["job_name"] for each in config["scrape_configs"]} - {"dcgm"}
    interval_s = {each["interval"] for each in endpoints.values()}
    assert interval_s == {config["global"]["scrape_interval"]}


def test_the_example_fits_one_v100_and_models_on_a_volume(tmp_path: Path) -> None:
    text = (FOLDER / "example/kustomization.yaml").read_text()
    text = text.replace("../fleet", "../one-v100").replace("# - ../components", "- ../components")
    (tmp_path / "kustomization.yaml").write_text(
        text.replace("../", os.path.relpath(FOLDER, tmp_path) + "/")
    )

    objects = render(tmp_path)

    assert not problems(ray_service(objects))
    assert ray_service(objects)["spec"]["upgradeStrategy"] == {"type": "None"}
    for group in WORKERS:
        (container,) = pods(objects)[group]["containers"]
        assert {"name": "models", "mountPath": "/models", "readOnly": True} in container[
            "volumeMounts"
        ]
