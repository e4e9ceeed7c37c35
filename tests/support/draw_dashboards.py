"""Draw the dashboards' content for the docs: ``python -m tests.support.draw_dashboards ADDRESS``.

ADDRESS is that of a Prometheus with the metrics of a service. The docs show those of a test:

    pytest tests/integration/test_monitoring.py --basetemp DIR
    echo > DIR/empty.yaml
    prometheus --storage.tsdb.path DIR/monitored0/tsdb --config.file DIR/empty.yaml
    python -m tests.support.draw_dashboards http://127.0.0.1:9090

The values are what Grafana would show; the pictures are matplotlib's.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

import click
import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, Formatter, FuncFormatter, PercentFormatter

from cluster.grafana.__main__ import FOLDER
from cluster.grafana.panels import PANELS_PER_LINE
from testkit.prometheus import Prometheus
from testkit.service import ROOT

PICTURES = ROOT / "docs/operate/dashboards"
STEP_S = 1.0
RATE_INTERVAL = "1m"
LEGEND_MAX = 6
SERIES_MAX = 12


def draw(prometheus: Prometheus, name: str, start: float, end: float) -> None:
    """Write the picture of the dashboard ``name`` between two Unix times."""
    dashboard = json.loads((FOLDER / f"{name}.json").read_text())
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    heights = [1 if panel["type"] == "stat" else 4 for panel in panels[::PANELS_PER_LINE]]
    figure, grid = plt.subplots(
        len(heights),
        PANELS_PER_LINE,
        figsize=(12, 0.6 * sum(heights)),
        height_ratios=heights,
        squeeze=False,
    )
    for axes, panel in zip(grid.flat, panels, strict=True):
        axes.set_title(panel["title"], fontsize=9, loc="left")
        if panel["type"] == "stat":
            _number(axes, panel, prometheus, end)
        else:
            _lines(axes, panel, prometheus, start, end)
    figure.suptitle(f"{dashboard['title']} (drawn by matplotlib)", fontsize=11)
    figure.tight_layout()
    figure.savefig(PICTURES / f"{name}.png", dpi=80)
    plt.close(figure)


def _number(axes: Axes, panel: dict[str, Any], prometheus: Prometheus, end: float) -> None:
    (series,) = prometheus.query_range(panel["targets"][0]["expr"], end, end, STEP_S)
    value = float(series["values"][0][1])
    text = f"{value:.2%}" if _unit(panel) == "percentunit" else f"{value:g}"
    axes.text(0.5, 0.5, text, fontsize=22, ha="center", va="center")
    axes.axis("off")


def _lines(
    axes: Axes, panel: dict[str, Any], prometheus: Prometheus, start: float, end: float
) -> None:
    drawn = 0
    for target in panel["targets"]:
        expression = target["expr"].replace("$__rate_interval", RATE_INTERVAL)
        for series in prometheus.query_range(expression, start, end, STEP_S)[:SERIES_MAX]:
            name = _name(target["legendFormat"], series["metric"])
            times = [float(at) - start for at, _ in series["values"]]
            values = [float(value) for _, value in series["values"]]
            axes.plot(times, values, linewidth=1, label=name if drawn < LEGEND_MAX else None)
            drawn += 1
    top = 1.15 * axes.dataLim.ymax or 1
    axes.set_ylim(-0.03 * top, top)  # so that a line at 0 is visible
    axes.set_xlim(0, end - start)
    axes.xaxis.set_major_formatter("{x:g} s")
    axes.yaxis.set_major_formatter(_formatter(_unit(panel)))
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=6, loc="best", framealpha=0.6)


def _name(template: str, labels: Mapping[str, str]) -> str:
    """Fill in the labels of a series, as Grafana does."""
    return re.sub(r"{{(\w+)}}", lambda match: labels.get(match[1], ""), template)


def _unit(panel: dict[str, Any]) -> str:
    return str(panel["fieldConfig"]["defaults"]["unit"])


def _formatter(unit: str) -> Formatter:
    match unit:
        case "percentunit":
            return PercentFormatter(1)
        case "percent":
            return PercentFormatter(100)
        case "s" | "hertz" | "watt" | "joule":
            return EngFormatter({"s": "s", "hertz": "Hz", "watt": "W", "joule": "J"}[unit])
        case _:
            return FuncFormatter(
                lambda value, _: f"{value / 1_000:g} k" if value >= 1_000 else f"{value:g}"
            )


@click.command()
@click.argument("address")
@click.option("--seconds", default=80.0, show_default=True, help="Length of the time axis.")
def main(address: str, seconds: float) -> None:
    """Draw the last seconds in which the Prometheus at ADDRESS saw the service."""
    prometheus = Prometheus(address)
    (last,) = prometheus.query("max(max_over_time(timestamp(ray_serve_deployment_status)[1d:1s]))")
    end = float(last["value"][1])
    PICTURES.mkdir(exist_ok=True)
    for path in sorted(FOLDER.glob("*.json")):
        draw(prometheus, path.stem, end - seconds, end)


if __name__ == "__main__":
    main()
