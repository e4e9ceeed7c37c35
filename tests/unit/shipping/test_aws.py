"""The files for Ray's launcher on AWS."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "cluster/aws"


@pytest.fixture(scope="module")
def config() -> Any:
    loaded = prepare_config(yaml.safe_load((FOLDER / "cluster.yaml").read_text()))
    validate_config(loaded)
    return loaded


def test_the_node_types_have_room_for_the_production_config(config: Any) -> None:
    production = yaml.safe_load((ROOT / "cluster/production.yaml").read_text())
    most = {
        deployment["name"]: deployment["autoscaling_config"]["max_replicas"]
        for application in production["applications"]
        for deployment in application["deployments"]
    }
    types = config["available_node_types"]

    assert set(types) == {"head", "gateway", "v100"}
    assert types["head"]["resources"]["CPU"] == 0
    assert types["gateway"]["max_workers"] == most["gateway"] + 1
    assert types["v100"]["max_workers"] == most["scorer"] + 1
    assert types["v100"]["resources"] == {"CPU": 2, "GPU": 1, "accelerator_type:V100": 1}
    assert types["v100"]["labels"] == {"ray.io/accelerator-type": "V100"}
    assert config["max_workers"] >= sum(each["max_workers"] for each in types.values())


def test_gpus_are_on_the_spot_market_and_gateways_are_not(config: Any) -> None:
    nodes = {name: each["node_config"] for name, each in config["available_node_types"].items()}

    assert nodes["v100"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert "InstanceMarketOptions" not in nodes["head"]
    assert "InstanceMarketOptions" not in nodes["gateway"]


def test_all_nodes_start_with_the_same_script(config: Any) -> None:
    commands = config["head_start_ray_commands"] + config["worker_start_ray_commands"]

    assert [each.split()[0] for each in commands] == ["~/rerank/cluster/aws/start.sh"] * 2
    assert "--dashboard-host=127.0.0.1" in commands[0]
    assert ". ~/rerank/cluster/ray.env" in (FOLDER / "env.sh").read_text()


@pytest.mark.parametrize("script", sorted(FOLDER.glob("*.sh")), ids=lambda path: path.name)
def test_the_scripts_are_shell(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
