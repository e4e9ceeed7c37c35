"""HTML reports of sweeps and runs: one file each, which loads nothing else."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from loadtests.plots import price, run_plots, sweep_plots, time_plots

TEMPLATE = "report.html.jinja"
NONE = "-"


def sweep_report(sweep: Mapping[str, Any]) -> str:
    """Return the page of a sweep."""
    target = sweep["options"]["target_p99_ms"]
    return _page(
        "Load sweep",
        facts=_sweep_facts(sweep),
        headline=f"{limit_of(sweep)} keep the p99 under {target:,.0f} ms",
        plots=sweep_plots({"": sweep}) | time_plots(sweep),
        tables=[_steps_table("Steps, by load", sweep)],
    )


def comparison_report(
    contents: Mapping[str, Mapping[str, Any]],
    sentence: str,
    columns: list[str],
    rows: list[list[str]],
) -> str:
    """Return the page that compares two sweeps or two runs by name.

    Args:
        sentence: The result in words. `loadtests.compare.compared` returns it with the columns and
            the rows.
    """
    are_sweeps = all("steps" in content for content in contents.values())
    steps = contents.items() if are_sweeps else ()
    return _page(
        "Comparison of two load tests",
        facts={name: _started(content) for name, content in contents.items()},
        headline=sentence,
        plots=sweep_plots(contents) if are_sweeps else {},
        tables=[
            {"title": "Results", "columns": columns, "rows": rows},
            *(_steps_table(f"Steps of {name}", sweep) for name, sweep in steps),
        ],
    )


def run_report(summary: Mapping[str, Any], samples: list[dict[str, Any]]) -> str:
    """Return the page of one run."""
    total, plan = summary["total"], summary["plan"]
    return _page(
        "Load test",
        facts=_run_facts(summary),
        headline=(
            f"{total['goodput_documents_per_s']:,.1f} of {total['documents_per_s']:,.1f}"
            f" documents/s answered, shape {plan['shape']}"
        ),
        plots=run_plots(summary, samples),
        tables=[_groups_table(summary)],
    )


def comparison(first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    """Return one sentence about the limits of two sweeps."""
    if first["options"]["target_p99_ms"] != second["options"]["target_p99_ms"]:
        return "The two sweeps have different targets, so their limits cannot be compared"
    before, after = first["limit"], second["limit"]
    if before["documents_per_s"] is None or after["documents_per_s"] is None:
        return "A limit is outside of the measured loads, so the limits cannot be compared"
    change = after["documents_per_s"] / before["documents_per_s"] - 1
    if None in (*before.values(), *after.values()):
        certainty = "a confidence interval is open"
    elif before["low"] <= after["high"] and after["low"] <= before["high"]:
        certainty = "the confidence intervals overlap"
    else:
        certainty = "the confidence intervals do not overlap"
    return f"The limit changes by {change:+.1%}; {certainty}"


def limit_of(sweep: Mapping[str, Any]) -> str:
    """Return the limit of a sweep in words."""
    found = sweep["limit"]
    if found["documents_per_s"] is not None:
        bounds = " to ".join(
            "?" if found[end] is None else f"{found[end]:,.0f}" for end in ("low", "high")
        )
        return f"{found['documents_per_s']:,.0f} documents/s (95 % interval {bounds})"
    loads = [step["summary"]["total"]["documents_per_s"] for step in sweep["steps"]]
    if all(step["is_kept"] for step in sweep["steps"]):
        return f"At least {max(loads):,.0f} documents/s"
    return f"Less than {min(loads):,.0f} documents/s"


def _started(content: Mapping[str, Any]) -> str:
    summary = content["steps"][0]["summary"] if "steps" in content else content
    return str(summary["started_at"])[:19].replace("T", " ") + " UTC"


def _sweep_facts(sweep: Mapping[str, Any]) -> dict[str, str]:
    summary = sweep["steps"][0]["summary"]
    return {
        "Saturates first": f"{sweep['saturates_first']}: {sweep['because']}",
        "Server": f"{summary['host']}, model {summary['model'] or 'chosen by the server'}",
        "Started": _started(sweep),
        **_plan_facts(summary["plan"]),
        "Step": f"{sweep['options']['step_s']:g} s, of which {sweep['options']['warm_up_s']:g} s"
        " are not measured",
    }


def _plan_facts(plan: Mapping[str, Any]) -> dict[str, str]:
    if plan["trace"] is not None:
        return {"Requests": f"replayed from {plan['trace']}"}
    sizes = ", ".join(f"{size} ({share:.0%})" for size, share in plan["sizes"])
    return {
        "Documents per request": sizes,
        "Tokens per pair": plan["pair_tokens"].replace(",", " at the median, ")
        + (" at p95" if "," in plan["pair_tokens"] else ""),
        "Gaps between requests": f"coefficient of variation {plan['cv']:g}",
    }


def _run_facts(summary: Mapping[str, Any]) -> dict[str, str]:
    errors = summary["generator"]["schedule_error_ms"] or {"p99": 0.0}
    return {
        "Server": f"{summary['host']}, model {summary['model'] or 'chosen by the server'}",
        "Started": _started(summary),
        **_plan_facts(summary["plan"]),
        "Schedule error": f"p99 {errors['p99']:.2f} ms",
    }


def _steps_table(title: str, sweep: Mapping[str, Any]) -> dict[str, Any]:
    columns = (
        *("documents/s due", "answered", "p50, ms", "p99, ms", "refused", "failed", "target"),
        *("scorers", "queued tokens", "cost/1,000", "price/1,000", "schedule error p99, ms"),
    )
    rows = []
    steps = sweep["steps"]
    for step in sorted(steps, key=lambda each: each["summary"]["total"]["documents_per_s"]):
        total, errors = step["summary"]["total"], step["summary"]["generator"]["schedule_error_ms"]
        latency = total["latency_ms"] or {}
        rows.append(
            [
                f"{total['documents_per_s']:,.0f}",
                f"{total['goodput_documents_per_s']:,.0f}",
                _number(latency.get("p50")),
                _number(latency.get("p99")),
                f"{total['refused_ratio']:.1%}",
                f"{total['error_ratio']:.1%}",
                "kept" if step["is_kept"] else "missed",
                _number(step["scorers"], 1),
                _number(step["queued_tokens"]),
                _dollars(step["cost_per_1000_documents"]),
                _dollars(price(step)),
                _number(errors["p99"] if errors else None, 2),
            ]
        )
    return _without_empty_columns(title, list(columns), rows)


def _groups_table(summary: Mapping[str, Any]) -> dict[str, Any]:
    columns = (
        *("requests of", "requests/s", "documents/s", "answered", "CV of gaps", "tokens/pair"),
        *("p50, ms", "p99, ms", "refused", "failed"),
    )
    rows = []
    for each in (summary["total"], *summary["classes"], *summary["tenants"], *summary["tiers"]):
        latency = each["latency_ms"] or {}
        rows.append(
            [
                each["name"],
                f"{each['requests_per_s']:,.2f}",
                f"{each['documents_per_s']:,.1f}",
                f"{each['goodput_documents_per_s']:,.1f}",
                _number(each["gaps_cv"], 2),
                _number(each["pair_tokens_mean"], 1),
                _number(latency.get("p50")),
                _number(latency.get("p99")),
                f"{each['refused_ratio']:.1%}",
                f"{each['error_ratio']:.1%}",
            ]
        )
    return _without_empty_columns("Classes, tenants and tiers", list(columns), rows)


def _without_empty_columns(title: str, columns: list[str], rows: list[list[str]]) -> dict[str, Any]:
    kept = [index for index in range(len(columns)) if any(row[index] != NONE for row in rows)]
    return {
        "title": title,
        "columns": [columns[index] for index in kept],
        "rows": [[row[index] for index in kept] for row in rows],
    }


def _number(value: float | None, digits: int = 0) -> str:
    return NONE if value is None else f"{value:,.{digits}f}"


def _dollars(value: float | None) -> str:
    return NONE if value is None else f"${value:,.5f}"


def _page(title: str, **content: Any) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE).render(title=title, **content)


def read(file: Path) -> dict[str, Any]:
    """Read the JSON file of a sweep or a run. Raises: ValueError: It is not one."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from None
    if not isinstance(content, dict) or not {"steps", "timeline"} & content.keys():
        raise ValueError(f"{file} is neither the result of a sweep nor the summary of a run.")
    return content
