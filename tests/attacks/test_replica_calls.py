"""Ray's calls between processes contain pickles, which run code. A client cannot send one.

The pickle of these tests creates a file. `test_the_token_lets_a_pickle_run` shows that it does,
so that the other tests can fail.
"""

import base64
import io
import json
import pickle
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from ray.serve.generated.serve_pb2 import ASGIRequest

from serve_app.access.api_keys import SCOPE_ADMIN, SCOPE_MANAGE, SCOPE_RERANK
from testkit.service import ROOT, Service, environment
from tests.attacks.conftest import everything_answers, rerank_body
from tests.support import ray_calls
from tests.support.listening import Port, ports_of
from tests.support.ray_calls import HANDLE_REQUEST, NO_TOKEN, REFUSALS, WRONG_TOKEN

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

OPENAPI = ROOT / "docs/reference/openapi.json"

CALLED_BY_RAY = {
    *("gateway", "scorer", "gcs_server", "raylet", "rerank-serve", "ray::DashboardAgent"),
    *("ray::ServeController", "ray::ProxyActor", "ray::HAProxyManager"),
}
"""Programs that serve gRPC services of Ray."""

HEADERS = (
    *("idempotency-key", "x-request-id", "traceparent", "tracestate", "cookie"),
    *("serve_multiplexed_model_id", "x-session-id", "x-request-timeout-seconds"),
)

REMOTE = """
import sys, ray
ray.init(address=sys.argv[1], logging_level="error")
@ray.remote(num_cpus=0)
def run(path):
    open(path, "w").close()
ray.get(run.remote(sys.argv[2]), timeout=180)
"""
"""A program that joins the cluster and lets it run a pickled function."""


class _Opening:
    """Its pickle opens a file for writing."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return io.open, (self._path, "w")


@dataclass(frozen=True, slots=True)
class Attack:
    """A pickle, and the file that it creates."""

    file: Path

    @property
    def pickled(self) -> bytes:
        return pickle.dumps(_Opening(self.file))

    @property
    def call(self) -> bytes:
        """A message for `ray_calls.HANDLE_REQUEST`."""
        message: bytes = ASGIRequest(pickled_request_metadata=self.pickled).SerializeToString()
        return message

    @property
    def has_run(self) -> bool:
        return self.file.exists()


@pytest.fixture
def attack(tmp_path: Path) -> Attack:
    return Attack(tmp_path / "the-pickle-ran")


@pytest.fixture(scope="module")
def ports(service: Service) -> list[Port]:
    return [port for port in ports_of(service) if port.protocol == "tcp"]


@pytest.fixture(scope="module")
def token(service: Service) -> str:
    (scorer,) = service.replicas("tiny")
    return str(scorer.environ()["RAY_AUTH_TOKEN"])


def test_no_method_of_ray_answers_without_the_token(ports: list[Port]) -> None:
    # HAProxy answers, too: it speaks HTTP/2, as gRPC does.
    programs = {port.target(): port.program for port in ports if port.program != "haproxy"}

    found = ray_calls.answers_without_the_token(list(programs))

    others = {target: each for target, each in found.items() if not set(each) <= REFUSALS}
    assert others == {}
    refusing = {programs[target] for target, each in found.items() if "UNAUTHENTICATED" in each}
    assert refusing == CALLED_BY_RAY


def test_a_pickle_without_the_token_does_not_run(ports: list[Port], attack: Attack) -> None:
    for port in ports:
        if port.program in ("gateway", "scorer"):
            for token in (NO_TOKEN, WRONG_TOKEN):
                answers = ray_calls.call(port.target(), {HANDLE_REQUEST: attack.call}, token)
                assert set(answers) <= REFUSALS
        with suppress(OSError), socket.create_connection(_where(port), 5) as connection:
            connection.sendall(attack.pickled)

    assert not attack.has_run


def test_the_token_lets_a_pickle_run(ports: list[Port], token: str, attack: Attack) -> None:
    for program in ("gateway", "scorer"):
        for port in ports:
            if port.program == program:
                ray_calls.call(port.target(), {HANDLE_REQUEST: attack.call}, token)

        assert attack.has_run
        attack.file.unlink()


def test_only_a_program_with_the_token_can_join_the_cluster(
    ports: list[Port], token: str, tmp_path: Path
) -> None:
    (gcs,) = [port for port in ports if port.program == "gcs_server"]
    (machine,) = {port.address for port in ports if port.program == "ray::RuntimeEnvAgent"}
    settings = {
        "no token": {"RAY_AUTH_MODE": "disabled"},
        "wrong token": {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": WRONG_TOKEN},
        "token": {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token},
    }

    def joins(name: str) -> bool:
        attack = Attack(tmp_path / name)
        command = [sys.executable, "-c", REMOTE, gcs.target(machine), str(attack.file)]
        variables = environment(tmp_path, **settings[name])
        subprocess.run(command, env=variables, cwd=ROOT, capture_output=True, check=False)
        return attack.has_run

    with ThreadPoolExecutor() as threads:
        joined = list(threads.map(joins, settings))

    assert joined == [False, False, True]


def test_an_http_port_without_the_token_runs_nothing(ports: list[Port], attack: Attack) -> None:
    """These are the ports of HAProxy, gateways, scorers, and Ray's proxy, agents and metrics."""
    paths = ("/", "/-/routes", "/v1/rerank", "/api/jobs/", "/get_or_create_runtime_env")
    answered = {
        port.program
        for port in ports
        for path in paths
        for method in ("GET", "POST", "PUT")
        if _status(method, f"http://{port.target()}{path}", attack.pickled)
    }

    assert {"haproxy", "gateway", "scorer", "ray::ProxyActor", "ray::RuntimeEnvAgent"} <= answered
    assert not attack.has_run


def test_nothing_that_a_client_sends_is_unpickled(
    service: Service, ports: list[Port], attack: Attack
) -> None:
    """The client has keys for all routes. Bodies, texts, headers and paths contain pickles."""
    direct = [port for port in ports if port.program in ("gateway", "ray::ProxyActor")]
    bases = [service.address, *(f"http://{port.target()}" for port in direct if _is_http(port))]
    assert len(bases) == 3
    for number, base in enumerate(bases):
        for scope in (SCOPE_RERANK, SCOPE_MANAGE, SCOPE_ADMIN):
            key = service.new_key(f"pickles-{scope}-{number}", scope=scope)
            with httpx.Client(base_url=base, timeout=30) as client:
                requests = _requests(client, key, attack)
                statuses = {client.send(each).status_code for each in requests}
            assert {200, 400, 404} <= statuses

    assert not attack.has_run
    everything_answers(service)


def _requests(client: httpx.Client, key: str, attack: Attack) -> Iterator[httpx.Request]:
    """Yield three requests for each operation of the API."""
    encoded = base64.b64encode(attack.pickled).decode()
    bearer = {"Authorization": f"Bearer {key}"}
    headers = bearer | dict.fromkeys(HEADERS, encoded)
    text = attack.pickled.decode("latin-1")
    body = rerank_body(text, encoded)
    for path, operations in json.loads(OPENAPI.read_text())["paths"].items():
        url = re.sub(r"{\w+}", quote(attack.pickled, safe=""), path)
        for method in operations:
            yield client.build_request(method, url, content=attack.pickled, headers=bearer)
            yield client.build_request(method, url, json=body, headers=bearer)
            yield client.build_request(
                method, url, params={"limit": text}, json=body, headers=headers
            )


def _is_http(port: Port) -> bool:
    return _status("GET", f"http://{port.target()}/ready", b"") == 200


def _where(port: Port) -> tuple[str, int]:
    address, _, number = port.target().rpartition(":")
    return address, int(number)


def _status(method: str, url: str, body: bytes) -> int:
    """Return the status of the answer, or 0 without one."""
    with suppress(httpx.HTTPError):
        return httpx.request(method, url, content=body, timeout=5).status_code
    return 0
