"""A private Ray on this machine, started and stopped with the application.

It does not disturb other Rays on the machine: it uses free ports, keeps its files in ``var_dir``,
and stops only the processes that it started. These end even if this process is killed.
"""

import io
import logging
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from random import SystemRandom
from typing import Any

import psutil
import ray
from ray import serve
from ray._private.ray_constants import PROCESS_TYPE_GCS_SERVER, PROCESS_TYPE_RAYLET
from ray.serve._private.api import serve_start
from ray.serve.schema import (
    ApplicationStatus,
    ApplicationStatusOverview,
    DeploymentStatus,
    ServeDeploySchema,
)

from serve_app.private_files import private_folder

HAPROXY_COMMAND = "rerank-serve-haproxy"
"""See `serve_app.deployments.haproxy`."""

OBJECT_STORE_BYTES = 100 * 2**20
"""Portions travel by gRPC, not through the object store; Ray requires at least 75 MiB."""

FREE_PORTS = range(20_000, 30_000)
"""Ray's workers use ports below these and Serve's replicas ports above. From 32,768, an outgoing
connection could take a port before HAProxy binds it."""

_ports = cycle(SystemRandom().sample(FREE_PORTS, len(FREE_PORTS)))

SESSIONS_KEPT = 3
"""Ended sessions whose logs stay in ``var_dir``."""


STOP_TIMEOUT_S = 3.0
"""Ray processes that run for longer are killed."""


class RayFailed(Exception):
    """Ray or Serve did not start, which happens on a busy machine: Ray's time limits are fixed."""


@dataclass(frozen=True, slots=True)
class DeploymentProgress:
    """Start-up progress of one deployment."""

    name: str
    status: str
    message: str


@dataclass(frozen=True, slots=True)
class Progress:
    """Start-up progress of the application."""

    running: bool
    failed: str | None
    """Why the application will never run, or ``None``."""

    deployments: tuple[DeploymentProgress, ...]


def free_port() -> int:
    """Return a free port of `FREE_PORTS`, a different one at each call.

    Raises: OSError if none is free.
    """
    for port in islice(_ports, len(FREE_PORTS)):
        if not port_is_taken(port):
            return port
    raise OSError(f"no port from {FREE_PORTS.start} to {FREE_PORTS.stop - 1} is free")


def port_is_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))  # noqa: S104 - the address HAProxy will bind
        except OSError:
            return True
        return False


def local_environment(run_dir: Path) -> dict[str, str]:
    """Return the environment that keeps Ray to ``run_dir`` and to free ports."""
    return {
        "RAY_AUTH_TOKEN": os.urandom(32).hex(),
        "RERANK_TLS_CERTIFICATE": "",  # Only clusters use it.
        # A replica that requests no GPU still sees an existing one; torch picks the device.
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(Path(sys.executable).with_name(HAPROXY_COMMAND)),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(run_dir / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(run_dir / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(run_dir),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(run_dir / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(run_dir / "metrics.sock"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port()),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(free_port()),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
    }


@contextmanager
def short_path(folder: Path) -> Iterator[Path]:
    """Yield another path of the private ``folder``, at most 20 characters, valid in the block.

    Ray and HAProxy put Unix sockets there, whose paths may have at most 107 characters.
    """
    private_folder(folder)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield Path(f"/proc/{os.getpid()}/fd/{descriptor}")
    finally:
        os.close(descriptor)


@contextmanager
def local_ray(var_dir: Path, metrics_port: int) -> Iterator[None]:
    """Run Ray and Serve's controller while the block runs.

    The variables of ``cluster/ray.env`` must be set before ray is first imported.

    Raises: RayFailed.
    """
    _forget_old_sessions(var_dir / "ray")
    for name in ("ray", "ray.serve"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with short_path(var_dir / "ray") as ray_dir:
        try:
            with _starting():
                ray.init(
                    address="local",
                    include_dashboard=False,
                    object_store_memory=OBJECT_STORE_BYTES,
                    log_to_driver=False,
                    configure_logging=False,
                    _temp_dir=str(ray_dir),
                    _metrics_export_port=metrics_port,
                )
            yield
        finally:
            family = psutil.Process().children(recursive=True)
            # Ray's messages while it stops look like a failure. Its log handlers have the original
            # streams.
            logging.getLogger("ray.serve").setLevel(logging.CRITICAL)
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                if ray.is_initialized():
                    serve.shutdown()
                ray.shutdown()
            # An HAProxy that drains its connections first would stay for two minutes.
            _, left = psutil.wait_procs([*family, *_orphans()], timeout=STOP_TIMEOUT_S)
            for process in left:
                process.kill()


@contextmanager
def _starting() -> Iterator[None]:
    """Raises: RayFailed, with the first line of Ray's reason."""
    try:
        yield
    except Exception as error:
        reason = str(error).strip() or type(error).__name__
        raise RayFailed(reason.splitlines()[0]) from error


def _orphans() -> list[psutil.Process]:
    """Return processes of this Ray that lost their parent.

    `short_path` puts this process's id on their command lines.
    """
    mark = f"/proc/{os.getpid()}/fd/"
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(mark in word for word in process.info["cmdline"] or ())
    ]


def is_alive() -> bool:
    vital = {PROCESS_TYPE_GCS_SERVER, PROCESS_TYPE_RAYLET}
    node = ray._private.worker._global_node
    return node is not None and not any(kind in vital for kind, _ in node.dead_processes())


def deploy(config: Mapping[str, Any]) -> None:
    """Deploy a Serve config like `serve deploy`, without waiting for it.

    Raises: RayFailed.
    """
    schema = ServeDeploySchema.model_validate(dict(config))
    with _starting():
        client = serve_start(
            http_options=schema.http_options.model_dump(),
            proxy_location=schema.proxy_location,
            global_logging_config=schema.logging_config,
        )
    client.deploy_apps(schema, _blocking=False)


def progress(applications: Collection[str]) -> Progress:
    """``applications`` have one deployment each."""
    found = serve.status().applications
    states = [found[name] for name in applications if name in found]
    failed = [_why(each) for each in states if each.status == ApplicationStatus.DEPLOY_FAILED]
    return Progress(
        running=len(states) == len(applications)
        and all(each.status == ApplicationStatus.RUNNING for each in states),
        failed=" ".join(failed) or None,
        deployments=tuple(
            DeploymentProgress(f"{application}/{name}", str(each.status.value), each.message)
            for application in applications
            if application in found
            for name, each in found[application].deployments.items()
        ),
    )


def _why(status: ApplicationStatusOverview) -> str:
    """Return the last lines of the messages of the application and its failed deployments."""
    failed = [
        f"{name}: {each.message.strip().splitlines()[-1]}"
        for name, each in status.deployments.items()
        if each.status == DeploymentStatus.DEPLOY_FAILED and each.message.strip()
    ]
    return " ".join([status.message.strip().splitlines()[-1], *failed])


@contextmanager
def run_dir(var_dir: Path) -> Iterator[Path]:
    """Yield a temporary folder for sockets, with a short path."""
    private_folder(var_dir / "run")
    folder = Path(tempfile.mkdtemp(dir=var_dir / "run"))
    try:
        with short_path(folder) as short:
            yield short
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _forget_old_sessions(ray_dir: Path) -> None:
    """Remove all sessions but the newest and those of living processes."""
    sessions = sorted(ray_dir.glob("session_2*"), key=lambda path: path.stat().st_mtime)
    # Ray does not replace a broken link, and this one breaks when its process ends.
    (ray_dir / "session_latest").unlink(missing_ok=True)
    for session in sessions[:-SESSIONS_KEPT]:
        pid = session.name.rpartition("_")[2]
        if not Path("/proc", pid).exists():
            shutil.rmtree(session, ignore_errors=True)
