"""The real service for tests: ``rerank-serve up`` as a child process."""

import atexit
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml
from pydantic import BaseModel
from sqlalchemy import Engine, create_engine, text

from serve_app.access.api_keys import SCOPE_RERANK
from serve_app.domain.model import UNLIMITED, RateLimits
from serve_app.domain.units import Credits
from serve_app.engine.export_cache import EXPORTS
from serve_app.settings import GATEWAY, SCORER
from serve_app.settings.live import LiveSettings
from serve_app.settings.models import Checkpoint, ModelSettings
from serve_app.settings.scorer import ScorerSettings
from testkit.log_leaks import OUTPUT_FILE
from testkit.office import Office

ROOT = Path(__file__).parents[1]
COMMAND = Path(sys.executable).with_name("rerank-serve")
START_TIMEOUT_S = 300.0
ONE_DOLLAR = Credits(1_000_000)


def wait_for(condition: Callable[[], Any], timeout_s: float = 60.0, what: str = "it") -> Any:
    """Poll until ``condition()`` is true, and return its value."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not happen within {timeout_s:g} s")
        time.sleep(0.05)
    return value


def environment(var_dir: Path, **more: str) -> dict[str, str]:
    """Return this process's environment without variables for another Ray or service."""
    kept = {
        name: value
        for name, value in os.environ.items()  # noqa: TID251 - for a child process
        if not name.startswith(("RAY_", "RERANK_"))
    }
    return kept | {"RERANK_VAR_DIR": str(var_dir), "PYTHONDONTWRITEBYTECODE": "1"} | more


@cache
def _shared_exports() -> Path:
    """Return a cache of exported models for all services of this process.

    An export takes as long as the rest of a service's start.
    """
    folder = tempfile.mkdtemp(prefix="rerank-exports-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


@dataclass
class Service:
    """A running service."""

    process: subprocess.Popen[bytes]
    address: str
    metrics_address: str
    key: str
    var_dir: Path
    output: Path
    database: Engine

    @classmethod
    def start(cls, folder: Path, config: Mapping[str, Any], port: int, **env: str) -> "Service":
        """Start the service with ``config`` and wait until it reports that it is ready."""
        config_file = folder / "config.yaml"
        config_file.write_text(yaml.safe_dump(dict(config)))
        (folder / "ray.env").write_text((ROOT / "cluster/ray.env").read_text())
        var_dir = folder / "var"
        var_dir.mkdir(exist_ok=True)
        if not (exports := var_dir / EXPORTS).exists():
            exports.symlink_to(_shared_exports())
        output = folder / OUTPUT_FILE
        with output.open("wb") as file:
            process = subprocess.Popen(
                [COMMAND, "up", "--config", config_file, "--port", str(port)],
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environment(var_dir, **env),
                cwd=ROOT,
            )
        try:
            wait_for(
                lambda: process.poll() is not None or "Press Ctrl-C to stop" in output.read_text(),
                START_TIMEOUT_S,
                "the start",
            )
            assert process.poll() is None, output.read_text()
        except BaseException:
            process.kill()
            raise
        said = dict(re.findall(r"^  ([\w ]+): +(\S+)$", output.read_text(), re.MULTILINE))
        return cls(
            process,
            said["address"],
            said["metrics"],
            said["key"],
            var_dir,
            output,
            create_engine(env.get("RERANK_DATABASE_URL", f"sqlite:///{var_dir / 'rerank.db'}")),
        )

    def stop(self) -> int:
        """Stop the service like Ctrl-C, and return its exit status."""
        self.database.dispose()
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=120)

    def family(self) -> list[psutil.Process]:
        """Return all descendant processes."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def replicas(self, application: str) -> list[psutil.Process]:
        """Return the processes of ``rerank``, the gateways, or of a model's scorers."""
        found = []
        for process in self.family():
            try:
                if f"ServeReplica:{application}:" in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.NoSuchProcess:
                continue
        return found

    def client(self, timeout_s: float = 60.0) -> httpx.Client:
        return httpx.Client(
            base_url=self.address,
            headers={"Authorization": f"Bearer {self.key}"},
            timeout=timeout_s,
        )

    def command(self, *arguments: str) -> str:
        """Run ``rerank-serve`` on the service's database and return what it prints."""
        return run_command(environment(self.var_dir), *arguments)

    def new_key(
        self,
        tenant: str,
        credit: Credits = ONE_DOLLAR,
        scope: str = SCOPE_RERANK,
        limits: RateLimits = UNLIMITED,
    ) -> str:
        """Create a tenant with ``credit`` micro-dollars, and return a key for it."""
        office = Office(self.database.url.render_as_string(hide_password=False))
        return office.key(office.tenant(tenant, credit), limits, scope).secret

    def charges(self) -> int:
        """Return the number of charges so far."""
        (row,) = self.rows("SELECT count(*) FROM charges")
        return int(row[0])

    def rows(self, sql: str, **values: object) -> list[Any]:
        with self.database.connect() as connection:
            return list(connection.execute(text(sql), values).all())

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.address}/ready", timeout=30).status_code == 200
        except httpx.TransportError:
            return False

    def logs(self) -> str:
        """Return all log lines of all processes."""
        return "\n".join(
            path.read_text(errors="replace")
            for path in (self.var_dir / "ray").rglob("*")
            if path.is_file() and path.suffix in {".log", ".out", ".err"}
        )


def run_command(env: Mapping[str, str], *arguments: str) -> str:
    """Run ``rerank-serve`` with these variables and return what it prints."""
    done = subprocess.run(
        [COMMAND, *arguments],
        env=dict(env),
        capture_output=True,
        text=True,
        check=True,
        timeout=180,
    )
    return done.stdout


def deployment(replicas: int, **more: Any) -> dict[str, Any]:
    """Return the options of a deployment in a test."""
    return {
        "num_replicas": replicas,
        "max_ongoing_requests": 256,
        "ray_actor_options": {"num_cpus": 0.1},
        "health_check_period_s": 1,
        "graceful_shutdown_timeout_s": 2,
    } | more


def model(
    model_id: str, source: str, scorers: dict[str, Any] | None = None, **settings: Any
) -> dict[str, Any]:
    """Return a model for `serve_config`.

    Args:
        scorers: Options of its deployment; by default there is one scorer.
        settings: Fields of `ModelSettings`, `Checkpoint` and `ScorerSettings`.
    """
    checkpoint = {"source": source} | _pop(settings, Checkpoint)
    args = _pop(settings, ScorerSettings)
    return {
        "settings": {"id": model_id, "checkpoint": checkpoint} | settings,
        "args": {"checkpoint": checkpoint} | args,
        "scorers": scorers or deployment(1),
    }


def serve_config(
    models: list[dict[str, Any]], gateways: dict[str, Any], **settings: Any
) -> dict[str, Any]:
    """Return a Serve config file's content.

    Args:
        models: See `model`.
        gateways: Options of the gateways' deployment.
        settings: Fields of `Settings` and `LiveSettings`.
    """
    live = _pop(settings, LiveSettings) | {"models": [each["settings"] for each in models]}
    return {
        "http_options": {"host": "0.0.0.0"},  # noqa: S104 - as HAProxy always does
        "logging_config": {"encoding": "JSON", "enable_access_log": False},
        "applications": [
            {
                "name": "rerank",
                "route_prefix": "/",
                "import_path": "serve_app.app:gateways",
                "args": settings,
                "deployments": [{"name": GATEWAY, **gateways, "user_config": live}],
            },
            *(
                {
                    "name": ModelSettings(**each["settings"]).application_name,
                    "route_prefix": None,
                    "import_path": "serve_app.app:scorer",
                    "args": each["args"],
                    "deployments": [{"name": SCORER, **each["scorers"]}],
                }
                for each in models
            ),
        ],
    }


def _pop(settings: dict[str, Any], kind: type[BaseModel]) -> dict[str, Any]:
    """Remove the fields of ``kind`` from ``settings`` and return them."""
    return {name: settings.pop(name) for name in [*settings] if name in kind.model_fields}
