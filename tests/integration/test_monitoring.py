"""The alerts fire for real faults, and the dashboards show real data.

A real Prometheus scrapes a real service, and all durations in the rules are divided by `FACTOR`.
The tests depend on each other's traffic and run in order.
"""

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster.grafana.__main__ import FOLDER
from testkit import prometheus
from testkit.service import wait_for
from tests.support.scraped import LONG_DOCUMENT, Scraped, scraped

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

FACTOR = 60
QUIET_S = 30.0
"""Times `FACTOR`, this is half an hour for the rules."""

OF_THE_MACHINE = {"RerankMemoryFull", "RerankDiskFull"}
"""Alerts that the machine of a test may raise by itself."""

DYING_FACTOR = 20
"""The factor for scorers that die: they do not start `FACTOR` times as fast as usual."""

ALERT_S = 180.0
DASHBOARDS = sorted(path.stem for path in FOLDER.glob("*.json"))


@pytest.fixture(scope="module")
def monitored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    with (
        scraped(tmp_path_factory.mktemp("monitored"), FACTOR, scrape_s=1) as running,
        running.repeating(running.ask, every_s=1),
    ):
        for metric in ("ray_serve_deployment_status", "ray_rerank_requests_total"):
            wait_for(partial(running.prometheus.query, metric), ALERT_S, metric)
        # Metrics are absent until the controller's first report, so an alert fires.
        wait_for(
            lambda: not running.prometheus.alerts() - OF_THE_MACHINE,
            *(ALERT_S, "the end of the first alert"),
        )
        yield running


def expect(monitored: Scraped, *alerts: str) -> None:
    """Wait until each of the alerts has fired."""
    missing = set(alerts)

    def all_fired() -> bool:
        missing.difference_update(monitored.prometheus.alerts())
        time.sleep(0.5)
        return not missing

    wait_for(all_fired, ALERT_S, f"an alert of {alerts}")


def test_no_alert_fires_while_all_is_well(monitored: Scraped) -> None:
    fired: set[str] = set()
    until = time.monotonic() + QUIET_S
    while time.monotonic() < until:
        fired |= monitored.prometheus.alerts()
        time.sleep(1)

    assert fired - OF_THE_MACHINE == set()


def test_bad_clients_a_failing_sink_and_a_broken_gpu_raise_alerts(monitored: Scraped) -> None:
    with (
        failing_sink_and_gpu(monitored),
        monitored.repeating(lambda: monitored.ask(headers=monitored.wrong_key), every_s=0.5),
        # More than the gateway admits, from clients that do not wait for their answers.
        monitored.repeating(
            lambda: monitored.ask(60, text=LONG_DOCUMENT, wait_s=0.05), every_s=0.1, clients=4
        ),
        monitored.repeating(
            lambda: monitored.ask(20, text=LONG_DOCUMENT, model="embedded", wait_s=0.4),
            every_s=0.1,
            clients=3,
        ),
    ):
        expect(
            monitored,
            "RerankWrongSecrets",
            "RerankEventsWait",
            "RerankOverloaded",
            "RerankComputesForNobody",
            "RerankReplicasMissing",
            "RerankGpuErrors",
            "RerankGpuHot",
        )


@contextmanager
def failing_sink_and_gpu(monitored: Scraped) -> Iterator[None]:
    monitored.sink.status = lambda _: 500
    monitored.gpus.temperature, monitored.gpus.xid = 88, 79
    try:
        yield
    finally:
        monitored.sink.status = lambda _: 204
        monitored.gpus.temperature, monitored.gpus.xid = 64, 0


def test_scorers_that_stop_again_and_again_raise_alerts(monitored: Scraped) -> None:
    def freeze(seconds: float) -> None:
        with monitored.frozen("tiny"):
            time.sleep(seconds)

    with monitored.repeating(monitored.ask, every_s=0.1, clients=4):
        # Most answers must be quick, because a portion is late after five times the usual time.
        with monitored.repeating(partial(freeze, 2), every_s=1):
            expect(monitored, "RerankScorersLate")
        with monitored.repeating(partial(freeze, 3), every_s=0.3):
            expect(monitored, "RerankSlow")


def test_a_ledger_that_cannot_be_written_raises_alerts(monitored: Scraped) -> None:
    with monitored.repeating(monitored.ask, every_s=0.5), monitored.locked_ledger():
        expect(monitored, "RerankLedgerAway", "RerankFails")


def test_scorers_that_die_again_and_again_raise_alerts(monitored: Scraped, tmp_path: Path) -> None:
    def kill_the_older_scorer() -> None:
        """Kill it once Serve has started a process in place of the last one killed."""
        with suppress(psutil.NoSuchProcess):
            scorers = sorted(monitored.service.replicas("tiny"), key=psutil.Process.create_time)
            for process in scorers[:-1]:
                process.kill()

    ask = partial(monitored.ask, 5, text=LONG_DOCUMENT)
    config = prometheus.federated(
        monitored.prometheus, "ray_rerank_portion_retries_total", scrape_s=1
    )
    with (
        monitored.repeating(ask, every_s=0.02, clients=2),
        monitored.repeating(kill_the_older_scorer, every_s=0.2),
        prometheus.running(tmp_path, config, DYING_FACTOR) as slower,
    ):
        expect(monitored, "RerankDeploymentUnhealthy")
        wait_for(lambda: "RerankScorersDie" in slower.alerts(), ALERT_S, "RerankScorersDie")


@pytest.mark.parametrize("dashboard", DASHBOARDS)
def test_every_panel_of_a_dashboard_shows_data(monitored: Scraped, dashboard: str) -> None:
    wait_for(lambda: monitored.ask() == 200, what="an answer")
    empty = [
        (panel["title"], target["expr"])
        for panel in panels(dashboard)
        for target in panel["targets"]
    ]

    def all_show_data() -> bool:
        # Scorers that have just replaced dead ones report their first metrics after seconds.
        empty[:] = [each for each in empty if not has_numbers(monitored, each[1])]
        return not empty

    with suppress(AssertionError):
        wait_for(all_show_data)
    assert not empty


def panels(dashboard: str) -> list[dict[str, Any]]:
    content = json.loads((FOLDER / f"{dashboard}.json").read_text())
    return [panel for panel in content["panels"] if panel["type"] != "row"]


def has_numbers(monitored: Scraped, expression: str) -> bool:
    """Whether a query has a value in the last minute. ``$__rate_interval`` is Grafana's."""
    now = time.time()  # noqa: TID251 - Prometheus has wall time
    series = monitored.prometheus.query_range(
        expression.replace("$__rate_interval", "1m"), now - 60, now, step_s=5
    )
    return any(not math.isnan(float(value)) for each in series for _, value in each["values"])


def test_past_faults_raise_alerts_over_days_when_the_pages_have_ended(monitored: Scraped) -> None:
    """The windows of one and three days, here 24 and 72 minutes, hold all faults until now.

    They are never full: Prometheus is only minutes old.
    """
    pages, tickets = {"RerankFails", "RerankSlow"}, {"RerankFailsOverDays", "RerankSlowOverDays"}

    def only_tickets() -> bool:
        fired.append(monitored.prometheus.alerts() & (pages | tickets))
        return fired[-1] == tickets

    fired: list[set[str]] = []
    with suppress(AssertionError):
        wait_for(only_tickets, ALERT_S)
    assert fired[-1] == tickets


def test_a_service_that_is_gone_raises_alerts(monitored: Scraped) -> None:
    monitored.end()

    assert monitored.service.stop() == 0

    expect(monitored, "RerankGone", "RerankNodeSilent")
