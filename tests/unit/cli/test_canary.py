"""The commands of ``rerank-serve canary``."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from serve_app.cli.canary import canary
from serve_app.cli.ledger_access import CLOCK
from serve_app.deployments.local_ray import free_port
from serve_app.domain.canary import Comparison
from serve_app.domain.units import Credits, Moment, RequestId, Revision, Seconds, Tokens
from serve_app.ledger.db import comparisons
from serve_app.ledger.db.engines import transaction
from serve_app.ledger.money.reservation import Reservation
from serve_app.ports import Usage
from tests.support import postings
from tests.support.fakes import EMBEDDED
from tests.support.ledger import TIMEOUT_S, a_tenant

LOCAL = (Path(__file__).parents[3] / "cluster/local.yaml").read_text()
LIVE, CANARY = Revision("embedded"), Revision("embedded-2")


@pytest.fixture
def filled_url(database_url: str) -> str:
    """A ledger with one shadow, and a charge of each revision."""
    acme = a_tenant(database_url, 100)
    now = CLOCK.moment()
    scored = (Seconds(0.012), Seconds(0.0105), Tokens(1_000), Tokens(900))
    with transaction(database_url, TIMEOUT_S) as connection:
        comparisons.add(
            connection,
            Comparison(RequestId("r1"), EMBEDDED, LIVE, CANARY, now, 40, 0.9, 0.8, *scored),
        )
    for name in (LIVE, CANARY):
        request_id, amount = RequestId(name), Credits(8)
        wanted = Reservation(
            request_id, acme.tenant, acme.key_id, EMBEDDED, amount, now, now, revision=name
        )
        with transaction(database_url, TIMEOUT_S) as connection:
            postings.reserve(connection, wanted)
            postings.commit(connection, request_id, amount, Usage(1, Tokens(77)), Moment(now))
    return database_url


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The local config file, whose model has a canary."""
    config = yaml.safe_load(LOCAL)
    scorers, gateways = config["applications"]
    config["applications"].append({**scorers, "name": "embedded-2"})
    (model,) = gateways["deployments"][0]["user_config"]["models"]
    model["canary"] = {"application": "embedded-2", "checkpoint": scorers["args"]["checkpoint"]}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def model_in(path: Path) -> dict[str, Any]:
    config = yaml.safe_load(path.read_text())
    (model,) = config["applications"][1]["deployments"][0]["user_config"]["models"]
    return dict(model)


def run(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(canary, words)
    return done.exit_code, done.output


def cells(output: str) -> list[Sequence[str]]:
    lines = (line.strip("│┃").replace("┃", "│").split("│") for line in output.splitlines())
    return [[cell.strip() for cell in line] for line in lines]


def test_the_report_compares_both_revisions(filled_url: str) -> None:
    status, output = run("report", EMBEDDED, "--database-url", filled_url)

    assert status == 0, output
    assert output.startswith("Shadows of 'embedded' by 'embedded-2': 1, ")
    rows = cells(output)
    assert ["Run time p50, ms", "12.0", "10.5"] in rows
    assert ["Tokens", "1,000", "900"] in rows
    assert ["Overlap of the best 10", "1", "0.900", "0.900"] in rows
    assert ["Kendall's tau", "1", "0.800", "0.800"] in rows
    assert ["embedded-2", "1", "0", "77"] in rows


def test_the_report_as_json_has_the_same_figures(filled_url: str) -> None:
    status, output = run("report", EMBEDDED, "--json", "--database-url", filled_url)

    assert status == 0, output
    found = json.loads(output)
    (shadows,) = found["shadows"]
    assert shadows["overlap_at_10"] == {"jobs": 1, "mean": 0.9, "p10": 0.9}
    assert shadows["canary"] == {
        "revision": "embedded-2",
        "tokens": 900,
        "run_s_p50": 0.0105,
        "run_s_p99": 0.0105,
    }
    assert found["requests"][0] == {
        "revision": "embedded",
        "requests": 1,
        "errors": 0,
        "tokens": 77,
    }


def test_a_model_without_requests_is_an_error(filled_url: str) -> None:
    status, output = run("report", "other", "--database-url", filled_url)

    assert status == 1
    assert "no request of the model 'other'" in output


def test_a_canary_is_promoted_in_the_file(file: Path) -> None:
    status, output = run("promote", EMBEDDED, "--config", str(file), "--no-deploy")

    assert status == 0, output
    assert f"serve deploy {file}" in output
    assert "'embedded' has no more requests 2 minutes later" in output
    assert model_in(file) == {
        "id": "embedded",
        "application": "embedded-2",
        "checkpoint": {"source": "embedded"},
    }


def test_a_canary_is_aborted_in_the_file(file: Path) -> None:
    status, output = run("abort", EMBEDDED, "--config", str(file), "--no-deploy")

    assert status == 0, output
    assert "'embedded-2' has no more requests" in output
    assert model_in(file) == {"id": "embedded", "checkpoint": {"source": "embedded"}}


@pytest.mark.parametrize("command", ["promote", "abort"])
def test_a_file_that_cannot_be_edited_stays_as_it_is(file: Path, command: str) -> None:
    before = file.read_text()

    status, output = run(command, "other", "--config", str(file), "--no-deploy")

    assert status == 1
    assert "There is no model 'other'." in output
    assert file.read_text() == before


def test_a_file_that_cannot_be_deployed_is_named(file: Path) -> None:
    address = f"http://127.0.0.1:{free_port()}"

    status, output = run("abort", EMBEDDED, "--config", str(file), "--address", address)

    assert status == 1
    assert "It is not deployed: " in output
    assert output.endswith(f"run `serve deploy {file}`.\n")
    assert "canary" not in model_in(file)
