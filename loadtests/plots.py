"""The plots of the reports, as SVG that is part of the page."""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

SIZE_INCHES = (6.4, 3.7)
BLUE, ORANGE, GREEN, RED, GREY = "#2563eb", "#d97706", "#15803d", "#b91c1c", "#6b7280"
COLOURS = (BLUE, ORANGE)
STYLE = {
    "font.size": 10,
    "font.family": "sans-serif",
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "rerank-serve",  # the same plot gives the same bytes
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#e5e7eb",
    "axes.edgecolor": "#9ca3af",
    "legend.frameon": False,
    "lines.markersize": 5,
}
OFFERED = "documents/s due"
RINGS = "rings"

Step = Mapping[str, Any]
Sweeps = Mapping[str, Mapping[str, Any]]
"""Sweeps by the labels of their lines; a single sweep has the label ''."""


@contextmanager
def _plot(svgs: dict[str, str], title: str, x: str, y: str) -> Iterator[Axes]:
    """Give axes to draw on, and add the plot to ``svgs`` under its title."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=SIZE_INCHES, layout="constrained")
        axes = figure.subplots()
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        yield axes
        if axes.get_legend_handles_labels()[1]:
            axes.legend()
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None}, transparent=True)
    svgs[title] = file.getvalue().partition("<svg")[1] + file.getvalue().partition("<svg")[2]


def sweep_plots(sweeps: Sweeps) -> dict[str, str]:
    """Return the plots of one sweep, or of two that are compared, by title."""
    svgs: dict[str, str] = {}
    target = next(iter(sweeps.values()))["options"]["target_p99_ms"]
    with _plot(
        svgs, "Latency against load", OFFERED, "latency from the scheduled time, ms"
    ) as axes:
        _logarithmic(axes)
        for (name, sweep), colour in zip(sweeps.items(), COLOURS, strict=False):
            _draw_limit(axes, sweep["limit"], colour)
            for share, style in (("p50", "o--"), ("p99", "o-")):
                points = [(_load(step), _latency(step, share)) for step in sweep["steps"]]
                _line(axes, points, style, colour, f"{share} {name}".strip())
            missed = [
                (_load(step), _latency(step, "p99"))
                for step in sweep["steps"]
                if not step["is_kept"]
            ]
            _line(axes, missed, RINGS, RED, "missed" if colour == BLUE else "")
        axes.axhline(target, color=RED, linewidth=1, label=f"target {target:,.0f} ms")
    with _plot(svgs, "Goodput", OFFERED, "documents/s answered") as axes:
        for (name, sweep), colour in zip(sweeps.items(), COLOURS, strict=False):
            points = [
                (_load(step), step["summary"]["total"]["goodput_documents_per_s"])
                for step in sweep["steps"]
            ]
            _line(axes, points, "o-", colour, name or "answered")
        most = max(_load(step) for sweep in sweeps.values() for step in sweep["steps"])
        axes.plot([0, most], [0, most], ":", color=GREY, label="all that is due")
    with _plot(svgs, "Refused and failed requests", OFFERED, "share of the requests, %") as axes:
        for (name, sweep), colour in zip(sweeps.items(), COLOURS, strict=False):
            for field, style in (("refused_ratio", "o-"), ("error_ratio", "x--")):
                points = [
                    (_load(step), 100 * step["summary"]["total"][field]) for step in sweep["steps"]
                ]
                label = {"refused_ratio": "refused", "error_ratio": "failed"}[field]
                _line(axes, points, style, colour, f"{label} {name}".strip())
        _from_0_to_1_at_least(axes)
    _cost_plot(svgs, sweeps)
    return svgs


def _cost_plot(svgs: dict[str, str], sweeps: Sweeps) -> None:
    """Draw cost and price, where they are known."""
    steps = [step for sweep in sweeps.values() for step in sweep["steps"]]
    if all(step["cost_per_1000_documents"] is None for step in steps):
        return
    with _plot(svgs, "Cost and price", OFFERED, "dollars per 1,000 documents") as axes:
        _logarithmic(axes)
        for (name, sweep), colour in zip(sweeps.items(), COLOURS, strict=False):
            costs = [(_load(step), step["cost_per_1000_documents"]) for step in sweep["steps"]]
            prices = [(_load(step), price(step)) for step in sweep["steps"]]
            _line(axes, costs, "o-", colour, f"cost {name}".strip())
            _line(axes, prices, "--", GREEN, f"price {name}".strip())


def price(step: Step) -> float | None:
    """Return the dollars that were charged for 1,000 documents."""
    found: float | None = step["summary"]["total"]["dollars_per_1000_documents"]
    return found


def time_plots(sweep: Mapping[str, Any]) -> dict[str, str]:
    """Return the parts of the latency, and the service's queues and replicas over time."""
    svgs: dict[str, str] = {}
    steps = sorted(sweep["steps"], key=_load)
    timed = [step for step in steps if step["summary"]["server_times"]["queue_ms"] is not None]
    if timed:
        with _plot(svgs, "Where the time is spent", OFFERED, "mean latency, ms") as axes:
            labels = {"run_ms": "computing", "queue_ms": "waiting for a scorer", "rest_ms": "rest"}
            axes.stackplot(
                [_load(step) for step in timed],
                [[step["summary"]["server_times"][part] for step in timed] for part in labels],
                labels=list(labels.values()),
                colors=(GREEN, ORANGE, GREY),
                alpha=0.7,
            )
            axes.legend(loc="upper left")
    samples_plots(svgs, sweep["samples"])
    return svgs


def samples_plots(svgs: dict[str, str], samples: Sequence[Mapping[str, Any]]) -> None:
    """Add the plots of the service's own metrics, if there are samples."""
    if not samples:
        return
    times = [sample["at"] - samples[0]["at"] for sample in samples]
    with _plot(svgs, "Queue over time", "seconds", "queued tokens") as axes:
        axes.fill_between(times, [sample["queued_tokens"] for sample in samples], color=ORANGE)
        axes.set_ylim(bottom=0)
    with _plot(svgs, "Replicas over time", "seconds", "healthy replicas") as axes:
        for name, colour, style in (("gateways", BLUE, "-"), ("scorers", GREEN, "--")):
            counts = [sample[name] for sample in samples]
            axes.step(times, counts, where="post", color=colour, linestyle=style, label=name)
        axes.set_ylim(bottom=0)
        axes.yaxis.get_major_locator().set_params(integer=True)


def run_plots(summary: Mapping[str, Any], samples: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the plots of one run over time."""
    svgs: dict[str, str] = {}
    rows = summary["timeline"]

    def column(name: str, factor: float = 1.0) -> list[tuple[float, float | None]]:
        return [(row["at_s"], None if row[name] is None else factor * row[name]) for row in rows]

    with _plot(svgs, "Load and goodput", "seconds", "documents/s") as axes:
        _line(axes, column("documents_per_s"), "-", GREY, "due")
        _line(axes, column("goodput_documents_per_s"), "-", BLUE, "answered")
        axes.set_ylim(bottom=0)
    with _plot(svgs, "Latency", "seconds", "latency from the scheduled time, ms") as axes:
        _logarithmic(axes)
        _line(axes, column("p50_ms"), "--", BLUE, "p50")
        _line(axes, column("p99_ms"), "-", BLUE, "p99")
    with _plot(svgs, "Refused and failed requests", "seconds", "share of the requests, %") as axes:
        _line(axes, column("refused_ratio", 100), "-", ORANGE, "refused")
        _line(axes, column("error_ratio", 100), "-", RED, "failed")
        _from_0_to_1_at_least(axes)
    with _plot(svgs, "Requests in flight", "seconds", "requests due and not answered") as axes:
        _line(axes, column("in_flight"), "-", ORANGE, "")
        _from_0_to_1_at_least(axes)
    samples_plots(svgs, samples)
    return svgs


def _from_0_to_1_at_least(axes: Axes) -> None:
    axes.set_ylim(0, max(1.0, axes.get_ylim()[1]))


def _logarithmic(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))


def _load(step: Step) -> float:
    return float(step["summary"]["total"]["documents_per_s"])


def _latency(step: Step, share: str) -> float | None:
    latency = step["summary"]["total"]["latency_ms"]
    return None if latency is None else latency[share]


def _draw_limit(axes: Axes, found: Mapping[str, float | None], colour: str) -> None:
    if found["documents_per_s"] is None:
        return
    axes.axvline(found["documents_per_s"], color=colour, linewidth=1, linestyle=":", label="limit")
    if found["low"] is not None and found["high"] is not None:
        axes.axvspan(found["low"], found["high"], color=colour, alpha=0.12, linewidth=0)


def _line(
    axes: Axes,
    points: Sequence[tuple[float, float | None]],
    style: str,
    colour: str,
    label: str,
) -> None:
    known = sorted((x, y) for x, y in points if y is not None)
    if not known:
        return
    if style == RINGS:
        axes.plot(*zip(*known, strict=True), "o", ms=9, mfc="none", color=colour, label=label)
    else:
        axes.plot(*zip(*known, strict=True), style, color=colour, label=label)
