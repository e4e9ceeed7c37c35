"""``rerank-serve up``: the whole service on this machine, in the foreground.

It prepares ``var_dir``, starts a private Ray cluster, deploys the config file, waits until the
service is ready, and prints an example request.
"""

import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import httpx
from rich.console import Console

from serve_app.cli.accounts import bootstrap
from serve_app.cli.up_config import check_models, read_config
from serve_app.domain.clock import SystemClock
from serve_app.domain.errors import LedgerUnavailable
from serve_app.domain.units import MICRO_DOLLARS_PER_DOLLAR, Credits
from serve_app.private_files import close_to_others, private_folder
from serve_app.settings.gateway import Settings

if TYPE_CHECKING:
    from serve_app.deployments import local_ray

FIRST_CREDIT = Credits(5 * MICRO_DOLLARS_PER_DOLLAR)
READY_TIMEOUT_S = 600.0
POLL_S = 0.25
ALIVE_POLL_S = 1.0

CURL = """\
curl -s {address}/v1/rerank \\
  -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' \\
  -d '{{"model": "{model}", "query": "how tall is the eiffel tower", "top_n": 2, "documents": [
    "The Louvre is a museum in Paris.",
    "The Eiffel Tower is 330 metres tall.",
    "Paris is the capital of France."]}}'"""


@click.command()
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=Path("cluster/local.yaml"),
    show_default=True,
    help="Serve config file. Environment variables for Ray are read from 'ray.env' next to it.",
)
@click.option("--port", type=click.IntRange(1, 65_535), envvar="RERANK_PORT", help="HTTP port.")
@click.option(
    "--model",
    envvar="RERANK_MODEL",
    help="Hub id or local folder of a model to serve instead of the models in the config file.",
)
def up(config: Path, port: int | None, model: str | None) -> None:
    """Run the whole service on this machine until Ctrl-C."""
    _obey_signals()
    os.umask(0o077)  # Ray and HAProxy inherit it, so their files are private.
    console = Console(highlight=False)
    try:
        _apply_switches(config.parent / "ray.env")
        _up(console, config, port, model)
    except KeyboardInterrupt:
        console.print("Stopped.")


def _up(console: Console, config_path: Path, port: int | None, model: str | None) -> None:
    # Ray reads its environment variables when it is first imported.
    from serve_app.deployments import local_ray  # noqa: PLC0415 - imports ray

    config, service = read_config(config_path, model)
    settings, models = service.settings, service.live.models
    http = config.setdefault("http_options", {})
    http["port"] = port or http.get("port", 8000)
    if local_ray.port_is_taken(http["port"]):
        raise click.ClickException(
            f"Port {http['port']} is already in use. "
            f"Choose another port: RERANK_PORT={http['port'] + 1} make serve"
        )

    var_dir = settings.var_dir.absolute()
    try:
        key = _first_key(settings, var_dir)
    except LedgerUnavailable as error:
        raise click.ClickException(f"The ledger is unusable. {error.reason}") from None
    except (ValueError, OSError) as error:
        raise click.ClickException(f"The ledger is unusable. {error}") from None
    os.environ.setdefault("HF_HOME", str(var_dir / "huggingface"))
    check_models(models)
    metrics_port = local_ray.free_port()
    with local_ray.run_dir(var_dir) as run_dir, _ray_failures():
        os.environ.update(local_ray.local_environment(run_dir))
        os.environ["RERANK_VAR_DIR"] = str(var_dir)
        console.print("Starting Ray ...")
        with local_ray.local_ray(var_dir, metrics_port):
            _obey_signals()  # Ray has installed its own handlers.
            try:
                local_ray.deploy(config)
                address = f"http://127.0.0.1:{http['port']}"
                _wait_until_ready(console, config, address)
                key = _still_good(address, key)
                _greet(console, address, key, metrics_port, var_dir, models[0].id)
                while local_ray.is_alive():
                    time.sleep(ALIVE_POLL_S)
                raise click.ClickException("Ray stopped. Its logs are in var/ray.")
            finally:
                # A second Ctrl-C must not interrupt the clean-up.
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                console.print("Stopping ...")


@contextmanager
def _ray_failures() -> Iterator[None]:
    from serve_app.deployments.local_ray import RayFailed  # noqa: PLC0415 - imports ray

    try:
        yield
    except RayFailed as error:
        raise click.ClickException(
            f"Ray did not start. Try again when this machine is less busy. {error}"
        ) from None


def _obey_signals() -> None:
    """Handle SIGTERM like Ctrl-C. Also enable SIGINT, which shells disable for background jobs."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, interrupt)


def _apply_switches(env_file: Path) -> None:
    """Variables that the environment has are not replaced."""
    if "ray" in sys.modules:
        raise AssertionError("ray was imported before its environment variables were set")
    os.environ.pop("RAY_ADDRESS", None)  # The service uses a private cluster.
    try:
        switches = read_switches(env_file)
    except OSError as error:
        raise click.ClickException(
            f"Cannot read the environment variables for Ray: {error}"
        ) from None
    for name, value in switches.items():
        os.environ.setdefault(name, value)


def read_switches(env_file: Path) -> dict[str, str]:
    """Return the assignments in a shell file without command substitutions."""
    lines = (line.partition("=") for line in env_file.read_text().splitlines())
    return {
        name: value
        for name, separator, value in lines
        if separator and not name.startswith("#") and not value.startswith("$(")
    }


def _first_key(settings: Settings, var_dir: Path) -> str | None:
    """Return the key in ``dev.key``, which is created with the database."""
    # Ray makes its sessions in this folder readable by all users.
    private_folder(var_dir)
    close_to_others(var_dir / "huggingface")
    key_file = var_dir / "dev.key"
    key = bootstrap(settings.resolved_database_url, SystemClock(), FIRST_CREDIT)
    if key is not None:
        key_file.unlink(missing_ok=True)
        descriptor = os.open(key_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(key + "\n")
        return key
    close_to_others(key_file)
    return key_file.read_text().strip() if key_file.exists() else None


def _wait_until_ready(console: Console, config: Mapping[str, Any], address: str) -> None:
    from serve_app.deployments.local_ray import progress  # noqa: PLC0415 - imports ray

    deadline = time.monotonic() + READY_TIMEOUT_S
    said: set[str] = set()
    with console.status("Loading ..."), httpx.Client(timeout=5) as client:
        while time.monotonic() < deadline:
            state = progress([each["name"] for each in config["applications"]])
            if state.failed is not None:
                raise click.ClickException(f"The service cannot start. {state.failed}")
            for step in _steps(state):
                if step not in said:
                    said.add(step)
                    console.print(step)
            if state.running and _is_ready(client, address):
                return
            time.sleep(POLL_S)
    raise click.ClickException(f"The service was not ready after {READY_TIMEOUT_S:g} s.")


def _steps(state: "local_ray.Progress") -> list[str]:
    words = {"UPDATING": "loading and warming up ...", "HEALTHY": "ready"}
    return [f"  {each.name}: {words.get(each.status, each.status)}" for each in state.deployments]


def _is_ready(client: httpx.Client, address: str) -> bool:
    try:
        return client.get(f"{address}/ready").status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def _still_good(address: str, key: str | None) -> str | None:
    """Return ``None`` if the key was revoked or belongs to another database."""
    headers = {"Authorization": f"Bearer {key}"}
    answer = httpx.get(f"{address}/v1/models", headers=headers, timeout=10)
    return key if answer.status_code == httpx.codes.OK else None


def _greet(
    console: Console, address: str, key: str | None, metrics_port: int, var_dir: Path, model: str
) -> None:
    facts: Mapping[str, Any] = {
        "address": address,
        "key": key or "unknown; create one with 'rerank-serve keys create'",
        "web page": f"{address}/",
        "API reference": f"{address}/docs",
        "metrics": f"http://127.0.0.1:{metrics_port}/metrics",
        "logs": (var_dir / "ray" / "session_latest").resolve() / "logs" / "serve",
    }
    console.print("\nReady.")
    for name, value in facts.items():
        console.print(f"  {name + ':':<15}{value}", soft_wrap=True)
    console.print("\nTry it:\n")
    console.print(
        CURL.format(address=address, key=key or "$RERANK_API_KEY", model=model),
        soft_wrap=True,
        markup=False,
    )
    console.print("\nPress Ctrl-C to stop.")
