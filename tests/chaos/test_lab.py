"""Faults of a cluster cost no request and no wrong charge."""

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from cluster.lab.namespaces import NoNamespaces, needs_user_namespace
from tests.chaos.lab.__main__ import run

FAULTS = (
    "scorer killed",
    "gateway killed",
    "controller killed",
    "head killed for 10 s",
    "gateway node killed for 20 s",
    "gateway frozen for 30 s",
    "scorer node cut off for 20 s",
    "database failed over",
)


@pytest.fixture(autouse=True)
def namespaces_are_allowed() -> None:
    try:
        needs_user_namespace()
    except NoNamespaces as problem:
        pytest.skip(str(problem))


@pytest.mark.ray
@pytest.mark.timeout(1_200)
def test_no_fault_fails_a_request_or_a_charge() -> None:
    result = run(FAULTS, requests_per_s=6, console=Console(quiet=True), keep_logs=None)

    assert result["problem"] == ""
    assert result["ledger"]["violations"] == []
    assert {each["fault"]: each["failed"] for each in result["faults"]} == dict.fromkeys(FAULTS, 0)
    for each in result["faults"]:
        assert each["full_capacity_s"] is not None, f"{each['fault']}: not all replicas came back"
        assert each["shared"] == [], f"{each['fault']}: two replicas on one node"


@pytest.mark.slow
def test_a_run_that_is_ended_removes_its_lab(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    command = [sys.executable, "-m", "tests.chaos.lab", "--fault", FAULTS[0]]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as runner:
        assert runner.stdout is not None
        assert "hosts run" in runner.stdout.readline()
        runner.terminate()

    assert runner.returncode == 128 + signal.SIGTERM
    assert not list(tmp_path.glob("rerank-lab-*"))
    assert not [each for each in psutil.process_iter(["cmdline"]) if _is_below(tmp_path, each)]


def _is_below(folder: Path, process: psutil.Process) -> bool:
    return any(word.startswith(str(folder)) for word in process.info["cmdline"] or ())
