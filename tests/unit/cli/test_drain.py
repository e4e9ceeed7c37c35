"""``rerank-serve drain`` on a machine without Ray. The lab runs it in a cluster."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

import pytest
from click.testing import CliRunner

from serve_app.cli.drain import drain
from testkit.service import wait_for

TITLE = "ray::ServeReplica:tests-of-drain:"
MODULE = import_module("serve_app.cli.drain")


@pytest.fixture(autouse=True)
def _only_replicas_of_these_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ignore those of a service that runs on this machine."""
    monkeypatch.setattr(MODULE, "PROCESSES", (TITLE,))
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")


@contextmanager
def replica(name: str) -> Iterator[None]:
    """Run a process with the title of a replica."""
    with subprocess.Popen(["bash", "-c", f"exec -a {TITLE}{name} sleep 100"]) as process:
        try:
            wait_for(lambda: any(MODULE._busy()), what="the title")
            yield
        finally:
            process.kill()


def test_a_node_without_replicas_is_drained_at_once() -> None:
    result = CliRunner().invoke(drain)

    assert (result.exit_code, result.output) == (0, "This node has no replicas.\n")


def test_a_failure_of_ray_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "COMMAND_TIMEOUT_S", 0.1)
    with replica("a"):
        result = CliRunner().invoke(drain)

    assert result.exit_code == 1
    assert result.output == "Error: Ray cannot drain this node. It did not answer within 0.1 s.\n"


def test_replicas_that_stay_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "_announce", lambda _: None)
    with replica("b"):
        result = CliRunner().invoke(drain, ["--seconds", "1"])

    assert result.exit_code == 1
    assert result.output == f"Error: The node still has {TITLE}b 100.\n"
