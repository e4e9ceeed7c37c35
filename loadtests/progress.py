"""What a run prints."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from loadtests.plan import Plan
from loadtests.records import Table
from loadtests.summary import REFUSED, SCHEDULE_ERROR_MAX_MS


def progress_line(table: Table, sent: int, in_flight: int, elapsed_s: float, plan: Plan) -> str:
    """Return one line of progress.

    Args:
        table: The requests that ended since the last line.
        sent: Number of requests sent so far.
        in_flight: Number of requests that have not ended.
    """
    latencies_s = table["latency_s"][table["correct"] == 1]
    answered, refused = len(latencies_s), int(np.isin(table["status"], REFUSED).sum())
    p99 = "-"
    if answered:
        p99 = f"{1_000 * np.percentile(latencies_s, 99, method='inverted_cdf'):,.0f} ms"
    return (
        f"{min(elapsed_s, plan.duration_s):4.0f} of {plan.duration_s:.0f} s:"
        f" {sent:,} sent, {in_flight:,} in flight;"
        f" since the last line {answered:,} answered with p99 {p99},"
        f" {refused:,} refused, {len(table['at_s']) - answered - refused:,} failed"
    )


def result_lines(summary: dict[str, Any]) -> Iterator[str]:
    """Yield the results that Locust's own table does not have."""
    total = summary["total"]
    yield (
        f"\n{total['requests']:,} requests, {total['requests_per_s']:,.1f}/s with"
        f" {total['documents_per_s']:,.1f} documents/s;"
        f" answered {total['goodput_documents_per_s']:,.1f} documents/s,"
        f" refused {total['refused_ratio']:.2%}, failed {total['error_ratio']:.2%}"
    )
    for each in (total, *summary["classes"], *summary["tenants"], *summary["tiers"]):
        if latency := each["latency_ms"]:
            yield (
                f"  {each['name']:<16} {each['requests']:>9,} requests,"
                f" p50 {latency['p50']:>9,.1f} ms, p99 {latency['p99']:>9,.1f} ms,"
                f" refused {each['refused_ratio']:.2%}, failed {each['error_ratio']:.2%}"
            )
    for problem, count in summary["problems"].items():
        yield f"  {count:,} x {problem}"
    yield from _generator_lines(summary["generator"])


def _generator_lines(made_by: dict[str, Any]) -> Iterator[str]:
    if (errors := made_by["schedule_error_ms"]) is None:
        return
    yield f"Schedule error: p50 {errors['p50']:.2f} ms, p99 {errors['p99']:.2f} ms."
    if made_by["is_bottleneck"]:
        cause = (
            "a process used more than 90 % of a core"
            if made_by["busy"]
            else f"the p99 of the schedule error is above {SCHEDULE_ERROR_MAX_MS:g} ms"
        )
        yield (
            f"THE LOAD GENERATOR IS THE BOTTLENECK: {cause}. The measured latencies are too high."
            " Add processes with --processes, or machines with --worker."
        )
