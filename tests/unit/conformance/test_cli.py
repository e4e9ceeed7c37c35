"""The command prints the report, writes it as JSON, and exits with 1 if a check fails."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from conformance import cli
from conformance.check import Outcome, Result
from conformance.families import FAMILIES
from conformance.report import Report
from conformance.server import Target

PASSED = Result("wire.a", "It answers.", Outcome.PASSED)
FAILED = Result("wire.b", "It sorts.", Outcome.FAILED, "1, 2", "2, [1]")
SKIPPED = Result("wire.c", "It limits.", Outcome.NOT_RUN, reason="needs --origin")
UNDEFINED = Result("wire.d", "It returns.", Outcome.NOT_APPLICABLE, reason="it has no option")


@pytest.mark.parametrize(
    ("results", "status", "summary"),
    [
        ([PASSED, FAILED, SKIPPED, UNDEFINED], 1, "tei: 1 of 2 checks passed (50.0%)"),
        ([PASSED, SKIPPED], 0, "tei: 1 of 1 checks passed (100.0%)"),
        ([], 0, "tei: 0 of 0 checks passed"),
    ],
)
def test_the_exit_status_tells_whether_a_check_failed(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    results: list[Result],
    status: int,
    summary: str,
) -> None:
    runs: list[tuple[object, ...]] = []

    def run(*arguments: object) -> Report:
        runs.append(arguments)
        return Report("tei", "2026-01-02", results)

    monkeypatch.setattr(cli, "run", run)
    file = tmp_path / "report.json"
    arguments = ["--base-url", "http://h", "--family", "tei", "--api-key", "k", "--group", "wire"]

    done = CliRunner().invoke(cli.main, [*arguments, "--json", str(file)])

    assert runs == [(FAMILIES["tei"], Target(base_url="http://h", api_key="k"), ("wire",))]
    assert done.exit_code == status
    assert summary in done.output
    assert ("2, [1]" in done.output) == (FAILED in results)
    assert ("needs --origin" in done.output) == (SKIPPED in results)
    assert len(json.loads(file.read_text())["results"]) == len(results)
