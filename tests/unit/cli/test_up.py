"""``rerank-serve up`` before Ray starts: the choice of the model, and errors."""

import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from serve_app.cli.up import CURL
from serve_app.cli.up_config import check_models, read_config, serve_only
from serve_app.settings.models import Canary, Checkpoint, ModelSettings
from testkit.service import COMMAND, ROOT, deployment, environment, model, serve_config
from testkit.tiny_models import build

HUB_ID = "cross-encoder/ms-marco-MiniLM-L12-v2"
LOCAL = ROOT / "cluster/local.yaml"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def silent_hub() -> Iterator[str]:
    """Yield the address of a hub that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def only_model(name: str) -> tuple[ModelSettings, list[dict[str, Any]]]:
    """Return the only model of ``cluster/local.yaml`` with ``--model``, and the applications."""
    config, service = read_config(LOCAL, name)
    (only,) = service.live.models
    return only, config["applications"]


def test_the_last_part_of_a_hub_id_becomes_the_id_and_the_whole_an_alias() -> None:
    only, applications = only_model(HUB_ID)

    assert (only.id, only.checkpoint.source) == ("ms-marco-MiniLM-L12-v2", HUB_ID)
    assert only.aliases == (HUB_ID,)
    assert [each["name"] for each in applications] == [only.application_name, "rerank"]


def test_the_deployment_options_of_the_default_model_are_kept() -> None:
    _, before = only_model("embedded")
    _, after = only_model(HUB_ID)

    assert after[0]["deployments"] == before[0]["deployments"]


def test_a_local_folder_is_found_from_every_folder(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny.parent)
    for name in ("tiny", "./tiny", str(tiny)):
        only, _ = only_model(name)

        assert (only.id, only.checkpoint.source) == ("tiny", str(tiny))
        assert only.aliases == (() if name == "tiny" else (name,))


def test_the_embedded_model_can_be_named() -> None:
    only, _ = only_model("embedded")

    assert (only.id, only.checkpoint.source, only.aliases) == ("embedded", "embedded", ())


def test_a_folder_whose_name_is_not_an_id_gets_one(tmp_path: Path) -> None:
    folder = tmp_path / "_my model (2)"
    folder.mkdir()

    only, _ = only_model(str(folder))

    assert only.id == "my-model--2-"


def test_other_models_are_dropped_and_other_settings_kept() -> None:
    config = serve_config(
        [
            model("a", "x", deployment(3), application="gpus", price_micro_dollars_per_document=9),
            model("b", "x", deployment(2)),
        ],
        deployment(1),
        key_cache_s=1,
        request_timeout_s=7,
    )

    scorers, gateways = serve_only("acme/reranker", config)

    assert (scorers["name"], scorers["args"]) == (
        "reranker",
        {"checkpoint": {"source": "acme/reranker"}},
    )
    assert scorers["deployments"][0]["num_replicas"] == 3
    assert gateways["args"] == {"key_cache_s": 1}
    assert gateways["deployments"][0]["user_config"] == {
        "models": [
            {
                "id": "reranker",
                "aliases": ["acme/reranker"],
                "checkpoint": {"source": "acme/reranker"},
            }
        ],
        "request_timeout_s": 7,
    }


def refused(tmp_path: Path, *arguments: str, **variables: str) -> str:
    """Return the one line with which ``up`` fails, before it starts Ray."""
    config = tmp_path / "config.yaml"
    config.write_text(LOCAL.read_text())
    (tmp_path / "ray.env").write_text((LOCAL.parent / "ray.env").read_text())
    done = subprocess.run(
        [COMMAND, "up", "--config", config, *arguments],
        env=environment(tmp_path / "var", HF_HUB_ETAG_TIMEOUT="1", **variables),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )

    assert done.returncode == 1
    assert done.stdout == "", "Ray was started"
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: ")
    assert not (tmp_path / "var/ray").exists()
    return line


@pytest.mark.slow  # Starts three processes, and one waits for a hub.
def test_an_unreachable_model_is_reported_in_one_line_however_it_is_named(
    tmp_path: Path, silent_hub: str
) -> None:
    by_variable = refused(tmp_path, RERANK_MODEL=HUB_ID, HF_HUB_OFFLINE="1")
    by_option = refused(tmp_path, "--model", HUB_ID, HF_HUB_OFFLINE="1")
    unanswered = refused(tmp_path, "--model", HUB_ID, HF_ENDPOINT=silent_hub)

    assert by_variable == by_option == unanswered
    assert f"model {HUB_ID}: the hub cannot be reached" in by_variable
    assert "copy it to this node and name its folder instead" in by_variable


@pytest.mark.slow  # Starts three processes.
def test_a_folder_without_a_model_is_reported_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    assert "has no config.json" in refused(tmp_path, "--model", str(tmp_path / "empty"))
    assert "there is no such folder" in refused(tmp_path, "--model", str(tmp_path / "absent"))
    assert "has an invalid name" in refused(tmp_path, "--model", "x" * 257)


def test_a_canary_without_a_model_is_reported_before_ray_starts(tmp_path: Path) -> None:
    canary = Canary(application="canary", checkpoint=Checkpoint(source=str(tmp_path)))
    model = ModelSettings(id="a", checkpoint=Checkpoint(source="embedded"), canary=canary)

    with pytest.raises(click.ClickException, match=re.escape(str(tmp_path))):
        check_models([model])


def test_the_example_request_names_the_model() -> None:
    example = CURL.format(address="http://127.0.0.1:8000", key="k", model="tiny")

    body = yaml.safe_load(example[example.index("{") : example.rindex("}") + 1])
    assert body["model"] == "tiny"
