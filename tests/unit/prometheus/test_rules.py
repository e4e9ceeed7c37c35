"""The Prometheus rules fire for their faults, and use existing metrics, labels and codes."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve.schema import DeploymentStatus

from serve_app.domain.errors import RerankError
from serve_app.http.problems import PROBLEMS
from serve_app.telemetry.metrics import METRICS, Kind
from testkit.service import ROOT

FOLDER = ROOT / "cluster/prometheus"
TESTS = tuple(
    ROOT / "tests/unit/prometheus" / name for name in ("promtool.yaml", "promtool-days.yaml")
)
RULE_FILES = ["objectives.yaml", "alerts.yaml"]
CONFIGURATIONS = (FOLDER / "prometheus.yaml", ROOT / "cluster/compose/prometheus.yaml")
RUNBOOK = "docs/operate/runbook.md"


def rules(name: str) -> list[dict[str, Any]]:
    groups = yaml.safe_load((FOLDER / name).read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


ALERTS = rules("alerts.yaml")
RECORDED = rules("objectives.yaml")
RULES = [*RECORDED, *ALERTS]
SUFFIXES = {
    Kind.COUNTER: ("_total",),
    Kind.GAUGE: ("",),
    Kind.HISTOGRAM: ("_bucket", "_count"),
}
OURS = {
    f"ray_{metric.name}{suffix}": metric for metric in METRICS for suffix in SUFFIXES[metric.kind]
}
BUCKET_LABELS = {"le"}


def codes(kind: type[RerankError] = RerankError) -> set[str]:
    return {kind.code, "ok"}.union(*map(codes, kind.__subclasses__()))


def promtool(*arguments: str) -> None:
    done = subprocess.run(
        ["promtool", *arguments], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_the_alerts_fire_for_their_faults_and_at_no_other_time(path: Path) -> None:
    promtool("test", "rules", str(path))


def test_promtool_accepts_the_rules() -> None:
    promtool("check", "rules", *(str(FOLDER / name) for name in RULE_FILES))


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.parent.name)
def test_a_configuration_is_valid_and_has_all_rules(path: Path) -> None:
    promtool("check", "config", "--syntax-only", str(path))

    assert yaml.safe_load(path.read_text())["rule_files"] == RULE_FILES


def test_every_alert_has_a_test_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    cases = [
        (case["alertname"], bool(case.get("exp_alerts")))
        for path in TESTS
        for test in yaml.safe_load(path.read_text())["tests"]
        for case in test["alert_rule_test"]
    ]

    assert set(cases) == {(rule["alert"], fires) for rule in ALERTS for fires in (True, False)}


@pytest.mark.parametrize(
    "rule", RULES, ids=[rule.get("alert", rule.get("record")) for rule in RULES]
)
def test_rules_query_existing_metrics_and_labels(rule: dict[str, Any]) -> None:
    asked = re.findall(r"\bray_rerank_(\w+)(?:\{([^}]*)\})?", rule["expr"])

    for name, selectors in asked:
        metric = OURS[f"ray_rerank_{name}"]
        for label, values in re.findall(r'(\w+)=~?"([^"]*)"', selectors):
            assert label in {*metric.labels, *BUCKET_LABELS}
            if label == "code":
                assert set(values.split("|")) <= codes()
            if label == "le":
                assert float(values) in metric.buckets
    assert {*re.findall(r"rerank:\w+:\w+", rule["expr"])} <= {each["record"] for each in RECORDED}


def test_a_failure_is_a_request_with_a_status_of_500_or_above() -> None:
    failed = {kind.code for kind, row in PROBLEMS.items() if row.status >= 500}
    expressions = {rule["record"]: rule["expr"] for rule in RECORDED}

    for name, expected in (("failures", set()), ("requests", {"ok"})):
        (asked,) = re.findall(r'code=~"([^"]*)"', expressions[f"rerank:{name}:rate5m"])
        assert set(asked.split("|")) == failed | {RerankError.code} | expected


@pytest.mark.parametrize("rule", ALERTS, ids=[rule["alert"] for rule in ALERTS])
def test_an_alert_names_its_severity_and_its_section_of_the_runbook(rule: dict[str, Any]) -> None:
    name = rule["alert"]

    assert set(rule["annotations"]) == {"summary", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"{RUNBOOK}#{name.lower()}"
    (section,) = re.findall(
        rf"^### {name}\n\nSeverity: (\w+)\. (?:.+\n)+\n(- \*\*Look at\*\* (?:.+\n)+)",
        (ROOT / RUNBOOK).read_text(),
        re.MULTILINE,
    )
    assert section[0] == rule["labels"]["severity"]
    assert "\n- **Do**" in section[1]


def test_the_runbook_has_no_section_without_an_alert() -> None:
    sections = re.findall(r"^### (\w+)$", (ROOT / RUNBOOK).read_text(), re.MULTILINE)

    assert sorted(sections) == sorted(rule["alert"] for rule in ALERTS)


def test_the_alerts_use_the_numbers_of_ray_serve() -> None:
    text = (FOLDER / "alerts.yaml").read_text()
    asked = dict(re.findall(r"\(ray_serve_deployment_status\) == (\d)  # (\w+)", text))

    assert {int(number): name for number, name in asked.items()} == {
        status.to_numeric(): status.name
        for status in (DeploymentStatus.DEPLOY_FAILED, DeploymentStatus.UNHEALTHY)
    }
