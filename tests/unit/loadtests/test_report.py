"""Reports are pages that load nothing else, and comparisons say how certain they are."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from loadtests.compare import compared, named
from loadtests.plan import Plan
from loadtests.report import comparison_report, run_report, sweep_report
from loadtests.summary import generator, summarize
from tests.support.load_records import table

SAMPLES: list[dict[str, Any]] = [
    {"at": 100.0 + second, "queued_tokens": 50.0, "gateways": 1, "scorers": 1 + second // 5}
    for second in range(10)
]


def summary(latency_s: float = 0.1, refused: int = 0, **changes: Any) -> dict[str, Any]:
    rows = table(
        at_s=[second / 5 for second in range(50)],
        latency_s=[latency_s] * 50,
        status=[429] * refused + [200] * (50 - refused),
        correct=[0] * refused + [1] * (50 - refused),
    )
    plan = Plan(duration_s=10, sizes=(("10", 1.0),), **changes)
    facts: dict[str, Any] = {
        "host": "http://<b>",
        "model": None,
        "started_at": "2026-01-02T03:04:05.000+00:00",
        "problems": {},
    }
    return summarize(rows, plan, 1, generator(rows, 1, 0, busy=False), facts)


def sweep(limit: float | None = 40.0, low: float = 35.0, high: float = 45.0) -> dict[str, Any]:
    steps = [
        {
            "rate_per_s": 5.0,
            "is_kept": kept,
            "scorers": 1.0,
            "queued_tokens": 50.0,
            "stage_ms": {},
            "cost_per_1000_documents": 0.001,
            "summary": summary(latency_s, refused),
        }
        for latency_s, refused, kept in ((0.1, 0, True), (0.4, 5, False))
    ]
    return {
        "options": {"target_p99_ms": 300, "step_s": 10, "warm_up_s": 0},
        "limit": {"documents_per_s": limit, "low": low, "high": high},
        "saturates_first": "scorers",
        "because": "scoring takes +300 ms",
        "steps": steps,
        "samples": SAMPLES,
    }


def check(page: str) -> None:
    """Check that a page loads nothing, and has no markup of the data."""
    assert not re.search(r'(?:src|href)="(?!#)', page)
    assert "url(http" not in page
    assert "http://<b>" not in page


def test_the_report_of_a_sweep_has_its_limit_plots_and_steps() -> None:
    page = sweep_report(sweep())

    check(page)
    assert "40 documents/s (95 % interval 35 to 45) keep the p99 under 300 ms" in page
    for title in ("Latency against load", "Goodput", "Cost and price", "Replicas over time"):
        assert f"<figcaption>{title}</figcaption>" in page
    assert page.count("<svg") == 7
    assert "missed" in page


def test_a_sweep_without_costs_and_metrics_has_no_such_plots() -> None:
    plain = sweep()
    plain["samples"] = []
    for step in plain["steps"]:
        step["cost_per_1000_documents"] = None

    page = sweep_report(plain)

    assert "Cost and price" not in page
    assert "Replicas over time" not in page


def test_a_limit_outside_of_the_steps_is_a_bound() -> None:
    assert "Less than 50 documents/s" in sweep_report(sweep(limit=None))


def test_the_report_of_a_run_has_its_classes() -> None:
    page = run_report(summary(shape="spike"), SAMPLES)

    check(page)
    assert "shape spike" in page
    assert "<td>10 documents</td>" in page


def write(folder: Path, content: dict[str, Any]) -> Path:
    folder.mkdir()
    file = folder / "result.json"
    file.write_text(json.dumps(content))
    return file


@pytest.mark.parametrize(
    ("second", "sentence"),
    [
        (sweep(60, 50, 70), "The limit changes by +50.0%; the confidence intervals do not overlap"),
        (sweep(44, 40, 48), "The limit changes by +10.0%; the confidence intervals overlap"),
        (sweep(None), "A limit is outside of the measured loads, so the limits cannot be compared"),
    ],
)
def test_two_sweeps_are_compared(tmp_path: Path, second: dict[str, Any], sentence: str) -> None:
    files = [write(tmp_path / name, each) for name, each in (("old", sweep()), ("new", second))]

    contents = named(*files)
    said, columns, rows = compared(contents)
    page = comparison_report(contents, said, columns, rows)

    assert said == sentence
    assert columns == ["", "old", "new"]
    check(page)
    assert sentence in page


def test_two_runs_are_compared(tmp_path: Path) -> None:
    files = [
        write(tmp_path / name, summary(latency_s, cv=cv))
        for name, latency_s, cv in (("old", 0.1, 1.0), ("new", 0.15, 3.0))
    ]

    contents = named(*files)
    said, columns, rows = compared(contents)

    assert said == "The loads differ in: cv"
    assert ["all: p99, ms", "100.0", "150.0", "+50.0%"] in rows
    check(comparison_report(contents, said, columns, rows))


def test_results_of_different_kinds_are_not_compared(tmp_path: Path) -> None:
    files = write(tmp_path / "a", sweep()), write(tmp_path / "b", summary())

    with pytest.raises(ValueError, match="One file is the result of a sweep"):
        named(*files)


def test_another_file_is_refused(tmp_path: Path) -> None:
    other = write(tmp_path / "a", {"answer": 42})

    with pytest.raises(ValueError, match="neither the result of a sweep"):
        named(other, other)
