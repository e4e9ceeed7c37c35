"""Render manifests with kubectl, and validate them as the API server would."""

import gzip
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import celpy
import jsonschema
import kubernetes_validate
import yaml

from cluster.kuberay.__main__ import FOLDER
from tests.support.programs import program

ROOT = Path(__file__).parents[2]
CRD = ROOT / "tests/data/kuberay/ray.io_rayservices.yaml.gz"
KUBERNETES = "1.37"
"""Version of Kubernetes whose schemas apply."""

Manifest = dict[str, Any]


def render(folder: Path) -> list[Manifest]:
    """Return the objects of the kustomization in ``folder``."""
    command = [program("kubectl"), "kustomize", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


@cache
def rendered(name: str) -> list[Manifest]:
    """Return the objects of a folder of ``cluster/kuberay``."""
    return render(FOLDER / name)


def of_kind(objects: list[Manifest], kind: str) -> list[Manifest]:
    return [each for each in objects if each["kind"] == kind]


def ray_service(objects: list[Manifest]) -> Any:
    (service,) = of_kind(objects, "RayService")
    return service


def cluster_of(objects: list[Manifest]) -> Any:
    return ray_service(objects)["spec"]["rayClusterConfig"]


def pods(objects: list[Manifest]) -> dict[str, Any]:
    """Return the pods' specs of the Ray cluster by the names of the groups."""
    cluster = cluster_of(objects)
    workers = {each["groupName"]: each["template"] for each in cluster["workerGroupSpecs"]}
    return {
        name: template["spec"]
        for name, template in {"head": cluster["headGroupSpec"]["template"], **workers}.items()
    }


def serve_config(objects: list[Manifest]) -> Any:
    return yaml.safe_load(ray_service(objects)["spec"]["serveConfigV2"])


def ray_env(objects: list[Manifest]) -> tuple[str, dict[str, str]]:
    (found,) = (
        each
        for each in of_kind(objects, "ConfigMap")
        if each["metadata"]["name"].startswith("ray-env-")
    )
    return found["metadata"]["name"], found["data"]


def switches(path: Path) -> dict[str, str]:
    lines = (line for line in path.read_text().splitlines() if line and not line.startswith("#"))
    return dict(line.split("=", 1) for line in lines)


def problems(manifest: Manifest) -> list[str]:
    """Return why an API server would refuse or ignore a part of ``manifest``."""
    if manifest["apiVersion"] == "ray.io/v1":
        return list(_crd_problems(manifest))
    try:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [str(error.message)]
    return []


def _crd_problems(manifest: Manifest) -> Iterator[str]:
    validator = jsonschema.Draft202012Validator(_closed(_rayservice_schema()))
    for error in validator.iter_errors(manifest):
        yield f"{error.json_path}: {error.message}"
    yield from _broken_rules(manifest, _rayservice_schema())


@cache
def _rayservice_schema() -> Manifest:
    definition = yaml.load(gzip.decompress(CRD.read_bytes()), yaml.CSafeLoader)
    (version,) = (each for each in definition["spec"]["versions"] if each["name"] == "v1")
    schema: Manifest = version["schema"]["openAPIV3Schema"]
    return schema


def _closed(schema: Any) -> Any:
    """Return a JSON schema that refuses unknown fields, which the API server would drop."""
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    open_fields = "x-kubernetes-preserve-unknown-fields" in schema
    if isinstance(schema.get("properties"), dict) and not open_fields:
        closed["additionalProperties"] = False
    return closed


def _broken_rules(value: Any, schema: Mapping[str, Any], path: str = "$") -> Iterator[str]:
    """Yield the messages of the CEL rules that ``value`` breaks.

    Transition rules are evaluated as for an update without changes.
    """
    for rule in schema.get("x-kubernetes-validations", ()):
        environment = celpy.Environment()
        program = environment.program(environment.compile(rule["rule"]))
        this = celpy.json_to_cel(value)
        if not program.evaluate({"self": this, "oldSelf": this}):
            yield f"{path}: {rule.get('message', rule['rule'])}"
    if isinstance(value, dict):
        of_any = schema.get("additionalProperties")
        for key, each in value.items():
            part = schema.get("properties", {}).get(key, of_any)
            if isinstance(part, dict):
                yield from _broken_rules(each, part, f"{path}.{key}")
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _broken_rules(each, schema.get("items", {}), f"{path}[{index}]")
