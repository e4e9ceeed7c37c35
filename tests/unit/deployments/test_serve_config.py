"""The project's Serve config files have no key that Ray would silently ignore."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from serve_app.deployments.serve_config import ConfigError, read_serve_config, unknown_keys
from serve_app.settings import ModelSettings, Settings

ROOT = Path(__file__).parents[3]
CONFIGS = sorted((ROOT / "cluster").glob("*.yaml"))
LOCAL: dict[str, Any] = yaml.safe_load((ROOT / "cluster/local.yaml").read_text())


def test_both_config_files_exist() -> None:
    assert {path.name for path in CONFIGS} >= {"local.yaml", "production.yaml"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_the_config_files_have_known_keys_and_valid_settings(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RERANK_DATABASE_URL", "postgresql://host/database")
    (application,) = read_serve_config(path)["applications"]

    settings = Settings(**application["args"])

    named = {deployment["name"] for deployment in application["deployments"]}
    built = {"gateway", *(model.deployment_name for model in settings.models)}
    assert named == built, "an override for a deployment that is not built changes nothing"


def test_production_answers_under_the_hub_id_of_its_model() -> None:
    (application,) = read_serve_config(ROOT / "cluster/production.yaml")["applications"]
    model = ModelSettings(**application["args"]["models"][0])

    assert model.source == "cross-encoder/ms-marco-MiniLM-L12-v2"
    assert model.source in {model.id, *model.aliases}


def test_in_production_two_replicas_of_a_deployment_never_share_a_node() -> None:
    (application,) = read_serve_config(ROOT / "cluster/production.yaml")["applications"]

    for deployment in application["deployments"]:
        assert deployment["max_replicas_per_node"] == 1
        assert deployment["autoscaling_config"]["min_replicas"] >= 2


@pytest.mark.parametrize(
    ("where", "key"),
    [
        ((), "aplications"),
        (("http_options",), "prt"),
        (("logging_config",), "encodng"),
        (("applications", 0), "route"),
        (("applications", 0, "deployments", 0), "num_replica"),
        (("applications", 0, "deployments", 0, "ray_actor_options"), "num_gpu"),
    ],
)
def test_a_misspelt_key_is_refused_by_name(
    tmp_path: Path, where: tuple[str | int, ...], key: str
) -> None:
    config = yaml.safe_load(yaml.safe_dump(LOCAL))
    place = config
    for step in where:
        place = place[step]
    place[key] = 1
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))

    with pytest.raises(ConfigError, match=re.escape(key)):
        read_serve_config(path)


@pytest.mark.parametrize("options", [None, {"num_gpus": 1, "label_selector": {"zone": "a"}}])
def test_all_actor_options_of_ray_are_accepted(options: dict[str, Any] | None) -> None:
    config = yaml.safe_load(yaml.safe_dump(LOCAL))
    config["applications"][0]["deployments"][0]["ray_actor_options"] = options

    assert list(unknown_keys(config, ServeDeploySchema)) == []


@pytest.mark.parametrize("text", ["a: [", "- a", "http_options: {port: many}"])
def test_a_file_that_is_not_a_config_raises_one_clear_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)

    with pytest.raises(ConfigError, match=re.escape(str(path))):
        read_serve_config(path)
