"""The committed dashboards are the generated ones, fit Grafana's schema, and name no tenant."""

import json
import re
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from cluster.grafana.__main__ import FOLDER, files
from serve_app.telemetry.metrics import METRICS, Kind

FILES = files()
SUFFIXES = {Kind.COUNTER: "_total", Kind.GAUGE: "", Kind.HISTOGRAM: "_bucket"}
OURS = {f"ray_{metric.name}{SUFFIXES[metric.kind]}" for metric in METRICS}


def expressions(text: str) -> list[str]:
    panels: list[dict[str, Any]] = json.loads(text)["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", [])]


def test_the_committed_dashboards_are_the_generated_ones() -> None:
    committed = {path.name: path.read_text() for path in FOLDER.glob("*.json")}

    assert committed == FILES, "run: python -m cluster.grafana"


@pytest.mark.parametrize("name", FILES)
def test_a_dashboard_has_no_field_that_grafana_s_types_lack(name: str) -> None:
    register_default_plugins()
    written = json.loads(FILES[name])

    read = Dashboard.from_json(written)

    assert json.loads(JSONEncoder(sort_keys=True).encode(read)) == written


@pytest.mark.parametrize("name", FILES)
def test_a_dashboard_queries_existing_metrics_and_no_tenants(name: str) -> None:
    asked = " ".join(expressions(FILES[name]))

    assert {*re.findall(r"\bray_rerank_\w+", asked)} <= OURS
    assert not re.findall(r"tenant|key_id", asked)


def test_the_dashboards_show_every_metric() -> None:
    asked = " ".join(each for text in FILES.values() for each in expressions(text))

    assert {*re.findall(r"\bray_rerank_\w+", asked)} == OURS
