"""The lab: a cluster of several hosts with the production config file, up and down."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster.lab.lab import Lab
from cluster.lab.namespaces import NoNamespaces
from cluster.lab.plan import NODES
from cluster.lab.start import up

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]

UP_S_MAX = 120
MEMORY_MIB_MAX = 10 * 1024
CHARGE = 3 * 8
"""Three documents at the price of the production file, in micro-dollars."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("lab") / "lab"
    try:
        lab = up(folder, None, lambda _: None)
    except NoNamespaces as problem:
        pytest.skip(str(problem))
    try:
        yield lab
    finally:
        if lab.is_running():
            lab.down()


@pytest.fixture(scope="module")
def state(lab: Lab) -> dict[str, Any]:
    return lab.status()


def test_it_is_up_within_its_bounds(lab: Lab, state: dict[str, Any]) -> None:
    assert lab.up_s <= UP_S_MAX
    assert 0 < state["memory_mib"] <= MEMORY_MIB_MAX


def test_gateways_and_scorers_are_on_nodes_of_their_own(state: dict[str, Any]) -> None:
    names = {node.address: node.name for node in NODES}
    places = sorted((each["deployment"], names[each["address"]]) for each in state["replicas"])

    assert {each["state"] for each in state["replicas"]} == {"RUNNING"}
    assert [place for place in places if place[0] == "gateway"] == [
        ("gateway", "cpu-1"),
        ("gateway", "cpu-2"),
    ]
    scorers = {node for deployment, node in places if deployment != "gateway"}
    assert len(scorers) == 2
    assert all(node.startswith("gpu-") for node in scorers)


def test_every_haproxy_answers_and_each_answer_is_charged_once(lab: Lab) -> None:
    urls = [node.url for node in lab.proxies()]
    command = [sys.executable, "-m", "tests.support.lab_requests", lab.key, *urls]

    seen = json.loads(lab.run("client", command))

    assert len(urls) == 5  # The head, and the nodes of two gateways and two scorers.
    assert seen["statuses"] == [200] * 5
    assert sorted(seen["charges"]) == sorted([each, CHARGE] for each in seen["ids"])


def test_down_leaves_nothing_and_ends_nothing_else(lab: Lab) -> None:
    neighbour = subprocess.Popen(["bash", "-c", "exec -a raylet sleep 1000"])
    inside = [process for host in lab.hosts.values() for process in host.descendants()]
    assert len(inside) > 30

    lab.down()

    assert not any(process.is_running() for process in inside)
    assert not lab.folder.exists()
    assert not [each for each in psutil.process_iter(["cmdline"]) if _names(each, lab.folder)]
    assert neighbour.poll() is None
    neighbour.kill()
    neighbour.wait()


def _names(process: psutil.Process, folder: Path) -> bool:
    return any(str(folder) in word for word in process.info["cmdline"] or ())
