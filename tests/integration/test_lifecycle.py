"""``rerank-serve up`` from start to Ctrl-C, together with another Ray, in a deep folder."""

import os
import stat
import subprocess
from pathlib import Path

import psutil
import pytest

from serve_app.deployments.local_ray import free_port
from testkit.log_leaks import DOCUMENT_MARKER, OUTPUT_FILE, QUERY_MARKER
from testkit.service import (
    COMMAND,
    ROOT,
    Service,
    deployment,
    environment,
    model,
    serve_config,
    wait_for,
)

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder so deep that the path of a Unix socket in it would be too long."""
    deep = tmp_path / "a-checkout-some-levels-down" / "in-a-folder-with-a-long-name"
    deep.mkdir(parents=True)
    return deep


def test_it_starts_next_to_another_ray_and_leaves_no_trace(
    service: Service, folder: Path, tmp_path: Path
) -> None:
    from testkit.tiny_models import build  # noqa: PLC0415 - imports torch

    home = tmp_path / "home"
    home.mkdir()
    stores = object_stores()
    tiny = str(build(folder / "tiny"))
    config = serve_config([model("tiny", tiny)], deployment(1))
    port = free_port()

    first = Service.start(folder, config, port, HOME=str(home))
    with first.client() as client:
        body = {"model": "embedded", "query": QUERY_MARKER, "documents": [DOCUMENT_MARKER]}
        assert client.post("/v1/rerank", json=body).status_code == 200, "the default model's alias"
    family = first.family()
    check_taken_port(folder, port)
    key_file = first.var_dir / "dev.key"
    assert key_file.read_text().strip() == first.key
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    status = first.stop()

    assert status == 0
    assert "Stopped." in first.output.read_text()
    check_ended(family)
    assert not list(home.rglob("*")), "something was written outside var/"
    assert object_stores() <= stores
    assert not list((first.var_dir / "run").iterdir())
    assert service.is_ready(), "the other service was disturbed"

    config = serve_config([model("embedded", "embedded")], deployment(1))
    again = Service.start(folder, config, port, HOME=str(home), RERANK_MODEL=tiny)
    try:
        assert again.key == first.key
        check_model_named_by_variable(again, tiny)
    finally:
        assert again.stop() == 0


def object_stores() -> set[str]:
    """Return the names of all object stores of Ray in the shared memory."""
    return {name for name in os.listdir("/dev/shm") if name.startswith("plasma")}  # noqa: S108 - Ray's own folder


def check_taken_port(folder: Path, port: int) -> None:
    second = subprocess.run(
        [COMMAND, "up", "--config", folder / "config.yaml", "--port", str(port)],
        env=environment(folder / "var"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )

    assert second.returncode == 1
    (line,) = (second.stdout + second.stderr).splitlines()
    assert f"Port {port} is already in use" in line
    assert "RERANK_PORT" in line


def check_model_named_by_variable(service: Service, tiny: str) -> None:
    """The variable's model replaces the config file's model, and has the same id and alias."""
    with service.client() as client:
        (card,) = client.get("/v1/models").json()["data"]
        body = {"query": "a", "documents": ["b"]}
        answers = [
            client.post("/v1/rerank", json=body | {"model": name}).json()
            for name in ("tiny", tiny, "embedded")
        ]

    assert (card["id"], card["aliases"], card["ready"]) == ("tiny", [tiny], True)
    assert [answer["model"] for answer in answers] == ["tiny"] * 3
    assert '"model": "tiny"' in service.output.read_text()


def check_ended(family: list[psutil.Process]) -> None:
    """Check that all processes end, those that were killed last a moment after the command."""
    wait_for(lambda: not any(map(is_alive, family)), 30, "the end of all processes")


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_model_that_fails_to_load_ends_the_start_with_one_line(folder: Path) -> None:
    broken = folder / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{}")
    config = serve_config([model("broken", str(broken))], deployment(1))

    with pytest.raises(AssertionError, match="broken"):
        Service.start(folder, config, free_port())

    output = (folder / OUTPUT_FILE).read_text().strip().splitlines()
    assert output[-1].startswith("Error: The service cannot start.")
    assert f"model {broken}: " in output[-1]


def test_a_ray_that_does_not_start_in_time_is_reported_in_one_line(folder: Path) -> None:
    """A busy machine takes longer than Ray waits. Here Ray does not wait at all."""
    done = subprocess.run(
        [COMMAND, "up", "--port", str(free_port())],
        env=environment(folder / "var", RAY_gcs_server_port_wait_time_s="0"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )

    assert (done.returncode, done.stdout) == (1, "Starting Ray ...\n")
    (line,) = done.stderr.splitlines()
    assert line.startswith("Error: Ray did not start. Try again when this machine is less busy. ")
    assert not list((folder / "var" / "run").iterdir())


def test_a_stop_during_the_start_is_clean(folder: Path) -> None:
    output = folder / OUTPUT_FILE
    with output.open("wb") as file:
        process = subprocess.Popen(
            [COMMAND, "up", "--port", str(free_port())],
            env=environment(folder / "var"),
            cwd=ROOT,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    wait_for(lambda: "loading" in output.read_text(), 300, "the start")
    family = psutil.Process(process.pid).children(recursive=True)
    process.terminate()

    assert process.wait(timeout=120) == 0
    check_ended(family)
