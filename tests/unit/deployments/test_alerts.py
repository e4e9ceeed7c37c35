"""The alerts ask for metrics, labels and codes that there are."""

import re
from typing import Any

import pytest
import yaml

from serve_app.domain.errors import RerankError
from serve_app.telemetry.metrics import METRICS, Kind
from tests.integration.service import ROOT

RULES = yaml.safe_load((ROOT / "cluster/alerts.yaml").read_text())["groups"][0]["rules"]
SUFFIXES = {Kind.COUNTER: "_total", Kind.GAUGE: "", Kind.HISTOGRAM: "_bucket"}
NAMES = {f"ray_{metric.name}{SUFFIXES[metric.kind]}": metric for metric in METRICS}
OF_SERVE = {"ray_serve_deployment_status"}


def codes(kind: type[RerankError] = RerankError) -> set[str]:
    return {kind.code, "ok"}.union(*map(codes, kind.__subclasses__()))


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_an_alert_asks_for_what_there_is(rule: dict[str, Any]) -> None:
    asked = re.findall(r"\b(ray_\w+)(?:\{(\w+)=~?\"([^\"]*)\"\})?", rule["expr"])

    assert asked
    for name, label, values in asked:
        if name in OF_SERVE:
            continue
        assert not label or label in NAMES[name].labels
        if label == "code":
            assert set(values.split("|")) <= codes()
    assert {"summary", "first"} == set(rule["annotations"])
