"""The file for Docker Compose is valid, stops containers gracefully and grants few privileges."""

import gzip
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from serve_app.deployments.serve_config import read_serve_config, settings_in

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "cluster/compose"
SCHEMA = json.loads(
    gzip.decompress((ROOT / "tests/data/compose/compose-spec.json.gz").read_bytes())
)
VALIDATOR = jsonschema.Draft7Validator(SCHEMA)
OF_RAY = ("gateway", "scorer")


@pytest.fixture(scope="module")
def compose() -> Any:
    return yaml.safe_load((FOLDER / "compose.yaml").read_text())


def test_it_is_a_compose_file(compose: Any) -> None:
    assert not list(VALIDATOR.iter_errors(compose))
    assert set(compose["services"]) == {"gateway", "scorer", "database", "prometheus"}


def test_a_wrong_compose_file_is_found(compose: Any) -> None:
    wrong = {**compose, "services": {"gateway": {"imagge": "a"}}}

    (error,) = VALIDATOR.iter_errors(wrong)

    assert "imagge" in error.message


def test_mounted_files_and_volumes_exist(compose: Any) -> None:
    for service in compose["services"].values():
        mounts = [each.split(":") for each in service.get("volumes", ())]
        sources = [source for source, *target in mounts if target]
        for source in [*sources, *service.get("env_file", ())]:
            assert source in compose["volumes"] or (FOLDER / source).is_file(), source


def test_the_serve_config_passes_our_own_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RERANK_DATABASE_URL", "postgresql://host/database")
    config = read_serve_config(FOLDER / "serve.yaml")

    settings_in(config)


def test_a_container_ends_after_its_requests(compose: Any) -> None:
    config = read_serve_config(FOLDER / "serve.yaml")
    slowest = max(
        deployment["graceful_shutdown_timeout_s"]
        for application in config["applications"]
        for deployment in application["deployments"]
    )
    for name in OF_RAY:
        assert int(compose["services"][name]["stop_grace_period"].rstrip("s")) > slowest


def test_containers_of_ray_have_the_switches_and_no_privileges(compose: Any) -> None:
    for name in OF_RAY:
        service = compose["services"][name]
        assert service["env_file"] == ["../kuberay/base/ray.env"]
        assert service["user"] == "1000:1000"
        assert service["read_only"]
        assert {"/tmp", "/var/lib/rerank"} < set(service["volumes"])  # noqa: S108 - the container's
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]


def test_ports_are_published_on_loopback_only(compose: Any) -> None:
    ports = [port for each in compose["services"].values() for port in each.get("ports", ())]

    assert set(ports) == {"127.0.0.1:9090:9090", "${RERANK_LISTEN:-127.0.0.1}:8000:8000"}
    assert compose["networks"] == {"database": {"internal": True}}


def test_no_secret_is_committed() -> None:
    text = (FOLDER / "compose.yaml").read_text()

    for name in ("DATABASE_PASSWORD", "RAY_AUTH_TOKEN"):
        assert re.search(rf"\$\{{{name}:\?", text), "a missing secret must be an error"
    assert not re.search(r"://[^/\s$]*:[^/\s$]*@", text)
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert ".env" in ignored
