"""Build panels and dashboards that share one style."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from grafana_foundation_sdk.builders import common as build
from grafana_foundation_sdk.builders import dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
)

COLUMNS = 24
PANELS_PER_LINE = 3
TAG = "rerank-serve"
DATASOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")

Graph = stat.Panel | timeseries.Panel


@dataclass(frozen=True, slots=True)
class Query:
    """A PromQL expression and the name of its series, which may contain ``{{label}}``."""

    expression: str
    name: str


def graph(title: str, unit: str, description: str, *queries: Query) -> Graph:
    """Return a panel with lines over time. ``unit`` is an id of Grafana's units."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .unit(unit)
        .min(0)
        .line_width(1)
        .fill_opacity(10)
        .show_points(common.VisibilityMode.NEVER)
        .legend(
            build.VizLegendOptions()
            .display_mode(common.LegendDisplayMode.LIST)
            .placement(common.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(
            build.VizTooltipOptions()
            .mode(common.TooltipDisplayMode.MULTI)
            .sort(common.SortOrder.DESCENDING)
        )
        .height(8)
        .span(COLUMNS // PANELS_PER_LINE)
    )
    for ref_id, query in zip("ABCDEF", queries, strict=False):
        panel.with_target(_target(ref_id, query))
    return panel


def number(title: str, unit: str, description: str, query: Query) -> Graph:
    """Return a panel with the current value of one series."""
    return (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(DATASOURCE)
        .unit(unit)
        .reduce_options(build.ReduceDataOptions().calcs(["lastNotNull"]))
        .graph_mode(common.BigValueGraphMode.NONE)
        .color_mode(common.BigValueColorMode.NONE)
        .height(4)
        .span(COLUMNS // PANELS_PER_LINE)
        .with_target(_target("A", query))
    )


def page(
    name: str, title: str, description: str, rows: Mapping[str, Sequence[Graph]]
) -> dashboard.Dashboard:
    """Return a dashboard with titled rows of panels."""
    built = (
        dashboard.Dashboard(f"rerank-serve: {title}")
        .uid(f"rerank-{name}")
        .description(description)
        .tags([TAG])
        .readonly()
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .refresh("30s")
        .time("now-1h", "now")
        .timezone("browser")
        .with_variable(
            dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")
        )
        .link(
            dashboard.DashboardLink("Dashboards")
            .type(DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .as_dropdown(True)
            .keep_time(True)
        )
    )
    ids = count(1)
    for row, panels in rows.items():
        built.with_row(dashboard.Row(row).id(next(ids)))
        for panel in panels:
            built.with_panel(panel.id(next(ids)))
    return built


def _target(ref_id: str, query: Query) -> prometheus.Dataquery:
    return prometheus.Dataquery().expr(query.expression).legend_format(query.name).ref_id(ref_id)
