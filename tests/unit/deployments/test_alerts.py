"""The alerts use existing metrics, labels and codes."""

import re
from typing import Any

import pytest
import yaml
from ray.serve.schema import DeploymentStatus

from serve_app.domain.errors import RerankError
from serve_app.telemetry.metrics import METRICS, Kind
from testkit.service import ROOT

TEXT = (ROOT / "cluster/prometheus/alerts.yaml").read_text()
RULES = yaml.safe_load(TEXT)["groups"][0]["rules"]
SUFFIXES = {Kind.COUNTER: "_total", Kind.GAUGE: "", Kind.HISTOGRAM: "_bucket"}
NAMES = {f"ray_{metric.name}{SUFFIXES[metric.kind]}": metric for metric in METRICS}
OF_SERVE = "ray_serve_deployment_status"


def codes(kind: type[RerankError] = RerankError) -> set[str]:
    return {kind.code, "ok"}.union(*map(codes, kind.__subclasses__()))


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_alerts_query_existing_metrics(rule: dict[str, Any]) -> None:
    asked = re.findall(r"\b(ray_\w+)(?:\{(\w+)=~?\"([^\"]*)\"\})?", rule["expr"])

    assert asked
    for name, label, values in asked:
        if name == OF_SERVE:
            assert (label, values) == ("application", "rerank")
            continue
        assert not label or label in NAMES[name].labels
        if label == "code":
            assert set(values.split("|")) <= codes()
    assert {"summary", "first"} == set(rule["annotations"])


def test_the_alerts_use_the_numbers_of_ray_serve() -> None:
    asked = dict(re.findall(rf"{OF_SERVE}{{.*}}\) == (\d)  # (\w+)", TEXT))

    assert {int(number): name for number, name in asked.items()} == {
        status.to_numeric(): status.name
        for status in (DeploymentStatus.DEPLOY_FAILED, DeploymentStatus.UNHEALTHY)
    }
