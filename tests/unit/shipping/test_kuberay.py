"""The manifests for KubeRay are valid, stop pods gracefully and grant few privileges."""

import copy
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import (
    _derive_autoscaling_config_from_ray_cr,
)
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil
from ray.core.generated.common_pb2 import LabelSelectorOperator

from cluster.kuberay.__main__ import CLUSTER, FOLDER, HAPROXY, HAPROXY_IN_IMAGES, copies
from serve_app.deployments.serve_config import read_serve_config, settings_in
from tests.support.manifests import (
    Manifest,
    cluster_of,
    of_kind,
    pods,
    problems,
    ray_env,
    ray_service,
    render,
    rendered,
    serve_config,
    switches,
)

pytestmark = pytest.mark.slow

OVERLAYS = ("one-v100", "fleet")
COMPONENTS = ("gke", "eks", "model-volume")


@pytest.fixture(scope="module", params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> list[Manifest]:
    return rendered(request.param)


def test_the_copies_are_current() -> None:
    for path, content in copies().items():
        assert path.read_text() == content, "run `python -m cluster.kuberay`"


def test_every_object_is_valid(overlay: list[Manifest]) -> None:
    found = {each["metadata"]["name"]: problems(each) for each in overlay}

    assert not {name: why for name, why in found.items() if why}
    assert {each["kind"] for each in overlay} >= {"RayService", "NetworkPolicy", "Ingress"}
    namespaces = {each["metadata"].get("namespace") for each in overlay}
    assert namespaces == {"rerank", None}  # The namespace itself has none.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda spec: spec.update(rayClusterConfg={}), "rayClusterConfg"),
        (lambda spec: spec.pop("rayClusterConfig"), "rayClusterConfig"),
        (lambda spec: spec.update(managedBy="someone"), "must be either"),
        (lambda spec: spec["rayClusterConfig"]["authOptions"].update(mode="yes"), "'yes'"),
        (lambda spec: spec["rayClusterConfig"].update(rayVersion=2.6), "2.6"),
    ],
)
def test_a_wrong_ray_service_is_found(change: Any, message: str) -> None:
    service = copy.deepcopy(ray_service(rendered("one-v100")))

    change(service["spec"])

    assert [each for each in problems(service) if message in each]


def test_the_serve_config_passes_our_own_check(
    overlay: list[Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RERANK_DATABASE_URL", "postgresql://host/database")
    path = tmp_path / "serve.yaml"
    path.write_text(ray_service(overlay)["spec"]["serveConfigV2"])

    settings_in(read_serve_config(path))


def test_the_fleet_has_the_production_config() -> None:
    production = yaml.safe_load((CLUSTER / "production.yaml").read_text())

    assert serve_config(rendered("fleet")) == production


def test_one_v100_has_the_production_config_with_single_replicas() -> None:
    expected = yaml.safe_load((CLUSTER / "production.yaml").read_text())
    for application in expected["applications"]:
        (deployment,) = application["deployments"]
        deployment["autoscaling_config"].update(min_replicas=1, max_replicas=1)

    assert serve_config(rendered("one-v100")) == expected


def test_all_nodes_have_the_switches_of_ray_env(overlay: list[Manifest]) -> None:
    name, data = ray_env(overlay)

    expected = switches(CLUSTER / "ray.env")
    assert data == {**expected, HAPROXY: HAPROXY_IN_IMAGES}
    assert data["RAY_SERVE_ENABLE_HA_PROXY"] == data["RAY_SERVE_THROUGHPUT_OPTIMIZED"] == "1"
    assert set(pods(overlay)) == {"head", "gateways", "v100"}
    for pod in pods(overlay).values():
        assert pod["containers"][0]["envFrom"] == [{"configMapRef": {"name": name}}]


def test_every_process_of_ray_requires_the_token(overlay: list[Manifest]) -> None:
    cluster = cluster_of(overlay)

    assert cluster["authOptions"] == {"mode": "token", "secretName": "rerank"}
    assert ray_env(overlay)[1]["RAY_AUTH_MODE"] == "token"
    for pod in pods(overlay).values():
        assert not {each["name"] for each in pod["containers"][0]["env"]} & {
            "RAY_AUTH_MODE",
            "RAY_AUTH_TOKEN",
        }


def test_no_manifest_has_a_secret(overlay: list[Manifest]) -> None:
    assert not of_kind(overlay, "Secret")
    for text in strings(overlay):
        assert not re.search(r"://[^/\s]*:[^/\s]*@", text)
    for name, variable in variables(overlay):
        if re.search("PASSWORD|TOKEN|KEY|DATABASE_URL", name):
            assert "secretKeyRef" in variable["valueFrom"], name


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from strings(each)


def variables(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for each in value.get("env", ()):
            yield each["name"], each
        for each in value.values():
            yield from variables(each)
    elif isinstance(value, list):
        for each in value:
            yield from variables(each)


def test_a_pod_ends_after_its_requests(overlay: list[Manifest]) -> None:
    """The drain gives a replica its graceful shutdown, which covers the longest request."""
    deployments = {
        deployment["name"]: deployment
        for application in serve_config(overlay)["applications"]
        for deployment in application["deployments"]
    }
    settings = deployments["gateway"]["user_config"]
    longest_request_s = settings.get("request_timeout_s_max", 60)
    drain_s = float(ray_env(overlay)[1]["RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"])
    shutdown_s = {
        name: deployment["graceful_shutdown_timeout_s"] for name, deployment in deployments.items()
    }
    assert shutdown_s["gateway"] >= drain_s + longest_request_s
    assert shutdown_s["scorer"] >= longest_request_s
    for group in ("gateways", "v100"):
        pod = pods(overlay)[group]
        command = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
        assert command[:3] == ["rerank-serve", "drain", "--seconds"]
        assert max(shutdown_s.values()) < int(command[3]) < pod["terminationGracePeriodSeconds"]


def test_an_old_cluster_stays_until_its_last_request_is_answered() -> None:
    spec = ray_service(rendered("fleet"))["spec"]

    assert spec["rayClusterDeletionDelaySeconds"] >= 100  # the maximum of request_timeout_s_max


def test_ray_starts_a_pod_of_the_right_group_for_each_replica() -> None:
    objects = rendered("fleet")
    options = {
        deployment["name"]: deployment["ray_actor_options"]
        for application in serve_config(objects)["applications"]
        for deployment in application["deployments"]
    }
    assert options["scorer"] == {"num_cpus": 2, "num_gpus": 1, "accelerator_type": "V100"}
    scorer = ResourceRequestUtil.make({"CPU": 2, "GPU": 1, "accelerator_type:V100": 0.001})
    assert options["gateway"] == {
        "num_cpus": 2,
        "label_selector": {"ray.io/accelerator-type": "!V100"},
    }
    not_v100 = ("ray.io/accelerator-type", LabelSelectorOperator.LABEL_OPERATOR_NOT_IN, ["V100"])
    gateway = ResourceRequestUtil.make({"CPU": 2}, label_selectors=[[not_v100]])
    config = AutoscalingConfig(
        _derive_autoscaling_config_from_ray_cr(
            {
                "metadata": {"name": "rerank-1", "namespace": "rerank"},
                "spec": cluster_of(objects),
            }
        ),
        skip_content_hash=True,
    )

    reply = ResourceDemandScheduler().schedule(
        SchedulingRequest(
            disable_launch_config_check=True,
            node_type_configs=config.get_node_type_configs(),
            max_num_nodes=config.get_max_num_nodes(),
            resource_requests=ResourceRequestUtil.group_by_count([scorer] * 4 + [gateway] * 5),
        )
    )

    assert not reply.infeasible_resource_requests
    launched = {each.instance_type: each.count for each in reply.to_launch}
    assert launched.pop("headgroup", 1) == 1
    assert launched == {"v100": 4, "gateways": 5}


def test_the_groups_have_room_for_all_replicas_and_one_more() -> None:
    objects = rendered("fleet")
    most = {
        deployment["name"]: deployment["autoscaling_config"]["max_replicas"]
        for application in serve_config(objects)["applications"]
        for deployment in application["deployments"]
    }
    groups = {each["groupName"]: each for each in cluster_of(objects)["workerGroupSpecs"]}

    assert groups["gateways"]["maxReplicas"] == most["gateway"] + 1
    assert groups["v100"]["maxReplicas"] == most["scorer"] + 1


def test_containers_run_without_privileges_on_a_read_only_root(overlay: list[Manifest]) -> None:
    (redis,) = of_kind(overlay, "StatefulSet")
    for pod in [*pods(overlay).values(), redis["spec"]["template"]["spec"]]:
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        (container,) = pod["containers"]
        assert_unprivileged(container["securityContext"])
    assert_unprivileged(cluster_of(overlay)["autoscalerOptions"]["securityContext"])


def assert_unprivileged(context: Any) -> None:
    assert context["readOnlyRootFilesystem"]
    assert not context["allowPrivilegeEscalation"]
    assert context["capabilities"] == {"drop": ["ALL"]}


def test_only_listed_ports_are_open_to_other_namespaces(overlay: list[Manifest]) -> None:
    policies = [each["spec"] for each in of_kind(overlay, "NetworkPolicy")]
    assert {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]} in policies
    opened: dict[str, set[int]] = {}
    for rule in (rule for policy in policies for rule in policy.get("ingress", ())):
        for peer in rule["from"]:
            if "namespaceSelector" in peer:
                access = peer["namespaceSelector"]["matchLabels"]["rerank-serve/access"]
                opened.setdefault(access, set()).update(each["port"] for each in rule["ports"])

    assert opened.pop("edge") in ({8000}, {8000, 80})
    assert opened == {"operator": {8265, 8000}, "monitoring": {8080, 9101}}


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize("name", OVERLAYS)
def test_every_component_fits_every_overlay(component: str, name: str, tmp_path: Path) -> None:
    content = {
        "resources": [os.path.relpath(FOLDER / name, tmp_path)],
        "components": [os.path.relpath(FOLDER / "components" / component, tmp_path)],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(content))

    objects = render(tmp_path)

    assert not problems(ray_service(objects))
    assert ray_service(objects) != ray_service(rendered(name))


def test_the_example_sets_the_images_the_host_and_the_database() -> None:
    objects = rendered("example")

    # The schemas of Kubernetes do not contain the objects of Prometheus's operator.
    checked = [each for each in objects if not each["apiVersion"].startswith("monitoring.")]
    assert not [why for each in checked for why in problems(each)]
    images = {name: pod["containers"][0]["image"] for name, pod in pods(objects).items()}
    assert images["head"] == images["gateways"]
    assert all(image.startswith("registry.example.com/") for image in images.values())
    (ingress,) = of_kind(objects, "Ingress")
    assert ingress["spec"]["rules"][0]["host"] == ingress["spec"]["tls"][0]["hosts"][0]
    assert "rerank.my-company.example" in set(strings(ingress))
    assert "10.20.0.0/24" in set(strings(of_kind(objects, "NetworkPolicy")))
