"""The project's Serve config files have no key that Ray would silently ignore."""

import re
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from serve_app.deployments.serve_config import (
    ConfigError,
    read_serve_config,
    settings_in,
    unknown_keys,
)
from serve_app.settings import GATEWAY, SCORER

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
    config = read_serve_config(path)

    found = settings_in(config)

    named = {
        deployment["name"]
        for application in config["applications"]
        for deployment in application["deployments"]
    }
    assert named == {GATEWAY, SCORER}, "options of a deployment that is not built change nothing"
    assert {model.application_name for model in found.live.models} == set(found.scorers)


def test_production_answers_under_the_hub_id_of_its_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RERANK_DATABASE_URL", "postgresql://host/database")
    config = read_serve_config(ROOT / "cluster/production.yaml")
    (model,) = settings_in(config).live.models

    assert model.checkpoint.source == "cross-encoder/ms-marco-MiniLM-L12-v2"
    assert model.checkpoint.source in {model.id, *model.aliases}


def test_in_production_two_replicas_of_a_deployment_never_share_a_node() -> None:
    config = read_serve_config(ROOT / "cluster/production.yaml")

    for application in config["applications"]:
        for deployment in application["deployments"]:
            assert deployment["max_replicas_per_node"] == 1
            assert deployment["autoscaling_config"]["min_replicas"] >= 2


def _without_gateways(config: dict[str, Any]) -> None:
    del config["applications"][1]


def _without_scorers(config: dict[str, Any]) -> None:
    del config["applications"][0]


def _other_checkpoint(config: dict[str, Any]) -> None:
    config["applications"][0]["args"] = {"checkpoint": {"source": "other"}}


def _canary(name: str, source: str) -> Callable[[dict[str, Any]], None]:
    def change(config: dict[str, Any]) -> None:
        config["applications"].append({**config["applications"][0], "name": "embedded-2"})
        (model,) = config["applications"][1]["deployments"][0]["user_config"]["models"]
        model["canary"] = {"application": name, "checkpoint": {"source": source}}

    return change


def _wrong_live_setting(config: dict[str, Any]) -> None:
    config["applications"][1]["deployments"][0]["user_config"]["request_timeout"] = 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without_gateways, "a deployment 'gateway'"),
        (_without_scorers, "no application 'embedded'"),
        (_other_checkpoint, "The checkpoint of the model 'embedded' differs"),
        (_canary("embedded-3", "embedded"), "The canary of .* has no application 'embedded-3'"),
        (_canary("embedded-2", "other"), "The checkpoint of the canary of .* differs"),
        (_wrong_live_setting, "request_timeout"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(
    change: Callable[[dict[str, Any]], None], message: str
) -> None:
    config = deepcopy(LOCAL)
    change(config)

    with pytest.raises(ConfigError, match=message):
        settings_in(config)


def test_a_canary_with_scorers_is_accepted() -> None:
    config = deepcopy(LOCAL)
    _canary("embedded-2", "embedded")(config)

    (model,) = settings_in(config).live.models

    assert model.canary is not None
    assert model.canary.share == 0


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
