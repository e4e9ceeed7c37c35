"""The lab: a cluster of several hosts with the production config file, up and down."""

import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster.lab.lab import Lab
from cluster.lab.namespaces import NoNamespaces
from cluster.lab.plan import BY_NAME, GCS_PORT, HEAD, HTTP_PORT, NODES, Host
from cluster.lab.service import DASHBOARD, ROOT
from cluster.lab.start import up
from tests.support import port_scan
from tests.support.listening import Port
from tests.support.ray_calls import REFUSALS

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

UP_S_MAX = 240
"""Four times what it takes on two cores that are free."""

COMMAND_S_MAX = 360.0
"""Longest time for a command that tries all ports of all nodes, or all methods of Ray."""

MEMORY_MIB_MAX = 10 * 1024
SCAN = Path(port_scan.__file__)
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


def test_a_client_reaches_only_the_api(lab: Lab) -> None:
    """The client is on the same network as the nodes; their firewalls keep it out."""
    with_haproxy = {host.address for host in lab.proxies()}

    found = scanned(lab, "client", lab.nodes())

    assert found == {
        host.address: [HTTP_PORT] if host.address in with_haproxy else [] for host in lab.nodes()
    }


def test_a_node_reaches_the_ports_that_a_client_does_not(lab: Lab) -> None:
    """The scan finds open ports, so the test with the client can fail."""
    (open_ports,) = scanned(lab, "gpu-1", [BY_NAME[HEAD]]).values()

    assert {GCS_PORT, HTTP_PORT, 8080, 8404, 9101} <= set(open_ports)
    assert 8265 not in open_ports


def scanned(lab: Lab, source: str, hosts: Sequence[Host]) -> dict[str, list[int]]:
    """Return the open TCP ports by address, as they look from the host ``source``."""
    command = [sys.executable, "-I", "-S", str(SCAN), *(host.address for host in hosts)]
    found: dict[str, list[int]] = json.loads(lab.run(source, command, COMMAND_S_MAX))
    return found


@pytest.fixture(scope="module")
def ports(lab: Lab) -> dict[str, list[Port]]:
    """The listening ports of every node."""
    command = [sys.executable, "-m", "tests.support.listening"]
    return {
        host.name: [Port(**each) for each in json.loads(lab.run(host.name, command))]
        for host in lab.nodes()
    }


def test_every_listening_port_is_documented(ports: dict[str, list[Port]]) -> None:
    rows = documented_ports()
    unknown = [
        (host, port)
        for host, found in ports.items()
        for port in found
        if port.program not in rows or not rows[port.program](port.number)
    ]

    assert unknown == []
    assert {port.program for found in ports.values() for port in found} == set(rows) - {
        "rerank-serve"  # It listens on a single machine.
    }


def test_the_dashboard_listens_only_on_loopback(lab: Lab, ports: dict[str, list[Port]]) -> None:
    assert {port.address for port in ports[HEAD] if port.number == 8265} == {"127.0.0.1"}
    assert lab.fetch(f"{DASHBOARD}/api/jobs/", None, HEAD)[0] == 401


def test_a_node_without_the_token_can_call_nothing_of_ray(
    lab: Lab, ports: dict[str, list[Port]]
) -> None:
    programs = {
        port.target(BY_NAME[host].address): port.program
        for host, found in ports.items()
        for port in found
        if port.protocol == "tcp" and "127.0.0.1" not in port.address and port.program != "haproxy"
    }
    command = [sys.executable, "-m", "tests.support.ray_calls", *programs]

    found = json.loads(lab.run("gpu-1", command, COMMAND_S_MAX))

    others = {target: each for target, each in found.items() if not set(each) <= REFUSALS}
    assert others == {}
    refusing = {programs[target] for target, each in found.items() if "UNAUTHENTICATED" in each}
    assert {"gateway", "scorer", "gcs_server", "raylet", "ray.util.client.server"} <= refusing


def test_haproxy_can_be_controlled_only_by_its_user(lab: Lab) -> None:
    for host in lab.proxies():
        find = ["find", "/tmp/haproxy-serve", "-name", "admin.sock", "-printf", "%m "]  # noqa: S108 - the host's
        assert lab.run(host.name, find).split() == ["600"]


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


def documented_ports() -> dict[str, Callable[[int], bool]]:
    """Return the programs in the table of ports, and whether they may listen on a number."""
    rows = re.findall(
        r"^\| `([^`]+)` \| ([\w ,]+) \|[^|]*\|([^|]*)\|",
        (ROOT / "docs/operate/security.md").read_text(),
        re.MULTILINE,
    )
    allowed: dict[str, list[range]] = defaultdict(list)
    for program, numbers, serves in rows:
        if "any" in numbers or "chosen by the system" in serves:
            allowed[program].append(range(1, 2**16))
        for first, _, last in re.findall(r"(\d+)( to (\d+))?", numbers):
            allowed[program].append(range(int(first), int(last or first) + 1))
    return {
        program: partial(lambda ranges, number: any(number in each for each in ranges), ranges)
        for program, ranges in allowed.items()
    }


def _names(process: psutil.Process, folder: Path) -> bool:
    return any(str(folder) in word for word in process.info["cmdline"] or ())
