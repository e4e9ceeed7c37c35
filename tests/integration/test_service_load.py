"""Load tests of the real service."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from testkit.service import COMMAND, ROOT, Service, environment

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def keys(service: Service) -> str:
    """The keys of two tenants."""
    return f"{service.key},{service.new_key('load')}"


def loadtest(
    service: Service, keys: str, folder: Path, *arguments: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, "loadtest", *arguments],
        cwd=folder,
        env=environment(service.var_dir, RERANK_API_KEY=keys, PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )


def test_two_processes_send_on_schedule_and_thresholds_set_the_exit_status(
    service: Service, keys: str, tmp_path: Path
) -> None:
    done = loadtest(
        *(service, keys, tmp_path, "run", "-H", service.address, "--model", "tiny"),
        *("--rate", "20", "--sizes", "5:4,20:1", "--tiers", "default,flex", "-t", "5s"),
        *("--processes", "2", "--summary", "summary.json", "--report", "report.html"),
        *("--metrics", service.metrics_address),
        *("--fail-p99-ms", "0.001", "--fail-error-ratio", "0", "--fail-refused-ratio", "0"),
    )

    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    assert [line for line in said.splitlines() if line.startswith("FAILED")] == [
        next(line for line in said.splitlines() if "above 0 ms" in line)
    ], said
    summary: dict[str, Any] = json.loads((tmp_path / "summary.json").read_text())
    total = summary["total"]
    assert total["statuses"] == {"200": total["requests"]}, said
    assert sum(each["requests"] for each in summary["classes"]) == total["requests"]
    assert all(each["requests"] for each in (*summary["tenants"], *summary["tiers"]))
    assert total["pair_tokens_mean"] > 10
    assert total["dollars_per_1000_documents"] > 0
    assert summary["server_times"]["queue_ms"] is not None
    assert summary["generator"]["processes"] == 2
    assert summary["generator"]["lost_processes"] == 0
    assert "Load and goodput" in (tmp_path / "report.html").read_text()


def test_a_sweep_finds_a_limit(service: Service, keys: str, tmp_path: Path) -> None:
    done = loadtest(
        *(service, keys, tmp_path, "sweep", "-H", service.address, "--model", "tiny"),
        *("--target-p99-ms", "10000", "--first-rate", "5", "--step-s", "2", "--warm-up-s", "0.5"),
        *("--steps-max", "2", "--sizes", "5", "--folder", "sweep"),
    )

    assert done.returncode == 0, done.stdout + done.stderr
    sweep = json.loads((tmp_path / "sweep/sweep.json").read_text())
    assert [step["is_kept"] for step in sweep["steps"]] == [True, True]
    assert "At least" in done.stdout
    assert "Latency against load" in (tmp_path / "sweep/report.html").read_text()


def test_a_server_that_does_not_answer_fails_the_run(
    service: Service, keys: str, tmp_path: Path
) -> None:
    done = loadtest(
        *(service, keys, tmp_path, "run", "-H", "http://127.0.0.1:9"),
        *("--rate", "20", "-t", "1s"),
    )

    assert done.returncode == 1
    assert "x no answer: ConnectionRefusedError" in done.stdout


def test_a_sweep_with_a_wrong_key_ends_with_its_first_step(
    service: Service, tmp_path: Path
) -> None:
    done = loadtest(
        *(service, "rk_wrong", tmp_path, "sweep", "-H", service.address),
        *("--target-p99-ms", "100", "--first-rate", "5", "--step-s", "1", "--warm-up-s", "0"),
    )

    assert done.returncode == 1
    assert "All requests of a step failed, most of them with: unauthenticated" in done.stderr
