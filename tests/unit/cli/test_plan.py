"""``rerank-serve plan``: where its traffic comes from, what it prints, and its errors."""

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from serve_app.cli import main
from serve_app.domain.formats import moment_of
from serve_app.domain.units import Credits, RequestId, Revision, Tokens
from serve_app.ledger.db.engines import transaction
from serve_app.ledger.money.reservation import Reservation
from serve_app.planning import sizing
from serve_app.ports import Usage
from tests.support import postings
from tests.support.fakes import EMBEDDED
from tests.support.http_server import listening
from tests.support.ledger import TIMEOUT_S, a_tenant

SMALL = ("--requests-per-s", "20", "--documents", "10")


@pytest.fixture(autouse=True)
def _short_simulations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizing, "REQUESTS", 500)
    monkeypatch.setattr(sizing, "SECONDS_MIN", 5.0)


def ran(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["plan", *arguments])


def planned(*arguments: str) -> dict[str, Any]:
    result = ran(*arguments, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def fails(*arguments: str) -> str:
    """Return the last line of stderr."""
    result = ran(*arguments)
    assert result.exit_code != 0, result.output
    return result.stderr.splitlines()[-1]


def test_a_plan_names_parts_costs_and_sources() -> None:
    result = ran(*SMALL)

    assert result.exit_code == 0, result.output
    for part in ("20 requests/s = 200 documents/s", "V100 (published, not measured here)"):
        assert part in result.stdout
    for part in (
        "Lambda 8x V100",
        "2026-09-20",
        "First to reach its limit: scorers",
        "the model card",
    ):
        assert part in result.stdout


def test_the_json_has_the_same_plan() -> None:
    found = planned(*SMALL)

    assert found["scorers"] == found["without_spare"]["scorers"] + 1
    assert found["simulated"]["p99_s"] <= 1
    assert found["costs"][0]["read_on"] == "2026-09-20"


def test_documents_per_s_are_divided_by_the_size() -> None:
    found = planned("--documents-per-s", "200", "--documents", "5:3,25:1")

    assert found["traffic"]["requests_per_s"] == 20
    assert found["traffic"]["documents"] == {"5": 0.75, "25": 0.25}


def test_a_machine_of_your_own() -> None:
    found = planned(*SMALL, "--scorer", "T4", "--price-per-hour", "0.5", "--price", "0.01")

    (cost,) = found["costs"]
    assert cost["instance"] == "yours"
    assert cost["price_per_1000_documents"] == 0.01


def test_without_a_known_price_the_plan_asks_for_one() -> None:
    assert "give --price-per-hour" in ran(*SMALL, "--scorer", "T4").stdout


def test_a_step_and_the_sensitivity_are_printed() -> None:
    result = ran(*SMALL, "--step", "3", "--start-s", "5")

    assert "grows 3 times at once" in result.stdout, result.output


@pytest.mark.slow
def test_a_plot_is_drawn(tmp_path: Path) -> None:
    file = tmp_path / "plan.png"

    assert ran("--requests-per-s", "5", "--documents", "5", "--plot", str(file)).exit_code == 0
    assert file.read_bytes().startswith(b"\x89PNG")


def test_the_traffic_of_a_load_test(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    total = {"requests_per_s": 20.0, "pair_tokens_mean": 60.0, "gaps_cv": 1.5}
    classes = [{"requests": 9, "documents": {"mean": 5.0}}]
    file.write_text(json.dumps({"total": total, "classes": classes}))

    found = planned("--load-run", str(file), "--burstiness", "1")

    assert found["traffic"]["documents"] == {"5": 1}
    assert found["traffic"]["pair_tokens"] == 60
    assert found["traffic"]["burstiness"] == 1


def test_the_traffic_of_the_busiest_day_of_a_month(database_url: str) -> None:
    acme = a_tenant(database_url, 1_000)
    for day, requests in ((3, 1), (4, 2)):
        now = moment_of(datetime(2026, 11, day, 12, tzinfo=UTC))
        for number in range(requests):
            name, amount = RequestId(f"r{day}-{number}"), Credits(8)
            wanted = Reservation(
                name, acme.tenant, acme.key_id, EMBEDDED, amount, now, now, revision=Revision("e")
            )
            with transaction(database_url, TIMEOUT_S) as connection:
                postings.reserve(connection, wanted)
                postings.commit(connection, name, amount, Usage(30, Tokens(1_500)), now)

    month = ("--ledger-month", "2026-11", "--database-url", database_url)
    found = planned(*month)["traffic"]

    assert found["requests_per_s"] == pytest.approx(2 / 86_400)
    assert found["documents"] == {"30": 1}
    assert found["pair_tokens"] == 50
    assert "no requests in 2026-10" in fails(
        "--ledger-month", "2026-10", "--database-url", database_url
    )


def metrics_app(answers: Iterator[str]) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse(next(answers))(scope, receive, send)

    return app


def test_the_traffic_and_speed_of_a_running_service() -> None:
    text = (
        'ray_rerank_requests_total{{code="ok"}} {0}\nray_rerank_documents_total {1}\n'
        "ray_rerank_tokens_total {2}\nray_rerank_scored_tokens_total {2}\n"
        "ray_rerank_batch_seconds_sum {3}\n"
    )
    readings = iter([text.format(0, 0, 0, 0), text.format(30, 300, 15_000, 0.5)])
    with listening(metrics_app(readings)) as address:
        found = planned("--metrics", f"{address}/metrics", "--metrics-s", "1")

    assert found["traffic"]["requests_per_s"] == 30
    assert found["profiles"]["scorer"]["tokens_per_s"] == 30_000
    assert found["profiles"]["scorer"]["basis"] == "measured"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Give one of --requests-per-s"),
        (("--requests-per-s", "1", "--documents-per-s", "1"), "Give one of"),
        (("--requests-per-s", "0"), "requests per second must be above 0"),
        (("--requests-per-s", "1", "--documents", "many"), "'many' is not a list"),
        (("--requests-per-s", "1", "--documents", "0"), "at least one document"),
        (("--requests-per-s", "1", "--scorer", "TPU"), "no published speed of TPU"),
        (("--requests-per-s", "1", "--scorer", "missing.json"), "cannot be read"),
        (("--requests-per-s", "1", "--p99-ms", "1"), "No number of replicas meets"),
        (("--load-run", "missing.json"), "cannot be read"),
        (("--ledger-month", "November"), "not a month"),
        (("--metrics", "http://127.0.0.1:9/"), "The metrics cannot be read"),
        (("--requests-per-s", "1", "--step", "1"), "must be above 1"),
    ],
)
def test_errors_have_one_line(arguments: tuple[str, ...], message: str) -> None:
    assert message in fails(*arguments)


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "serve_app.planning.sizing", None)

    assert "rerank-serve[plan]" in fails(*SMALL)
