"""``rerank-serve loadtest``: load tests with Locust in child processes."""

import json
import sys
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from serve_app.cli.reports import print_facts, print_table

if TYPE_CHECKING:
    from loadtests.sweep import SweepOptions

FORWARD = {"ignore_unknown_options": True}
REQUESTS_ENOUGH = 1_000
"""Steps with fewer requests have too low a p99: with 300, it is a quarter too low in the median of
a simulated queue."""

FILE = click.Path(dir_okay=False, path_type=Path)
METRICS = click.option(
    "--metrics",
    multiple=True,
    metavar="URL",
    help="Address of a node's metrics, for queues and replicas over time. May be repeated.",
)
OPTIONS = click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[LOCUST OPTION]...")


@click.group()
def loadtest() -> None:
    """Measure a running service with Locust. Needs the extra 'loadtest'.

    RERANK_API_KEY has the API keys, separated by commas. Without it, the key in var/dev.key is
    used.
    loadtests/README.md describes the options of Locust and of the load.
    """
    from loadtests.command import missing_packages  # noqa: PLC0415 - optional

    if missing := missing_packages():
        raise click.ClickException(
            f"Load tests need the packages {', '.join(missing)}:"
            " pip install 'rerank-serve[loadtest]'"
        )


class _WithLoadOptions(click.Command):
    def format_epilog(
        self,
        ctx: click.Context,  # noqa: ARG002 - click passes it
        formatter: click.HelpFormatter,
    ) -> None:
        from loadtests.options import help_text  # noqa: PLC0415 - optional

        formatter.write(f"\n{help_text(formatter.width)}")


@loadtest.command("run", cls=_WithLoadOptions, context_settings=FORWARD)
@click.option("--summary", type=FILE, hidden=True)
@click.option("--report", type=FILE, help="Write an HTML page with plots to this file.")
@METRICS
@OPTIONS
def run(
    summary: Path | None, report: Path | None, metrics: tuple[str, ...], options: tuple[str, ...]
) -> None:
    """Send one load, such as: run -H http://127.0.0.1:8000 --rate 20 -t 60s.

    All options of Locust work, too, such as --processes 4; `run -- --help` lists them. With
    thresholds, the exit status is 1 if one of them is exceeded, else 0.
    """
    from loadtests.command import locust_command, wait  # noqa: PLC0415 - optional
    from loadtests.report import run_report  # noqa: PLC0415
    from loadtests.service_metrics import MetricsWatch  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder, MetricsWatch(metrics) as watch:
        file = summary or Path(folder) / "summary.json"
        status = wait(locust_command([*options, "--summary", str(file)]))
        if report is not None and file.exists():
            content = json.loads(file.read_text(encoding="utf-8"))
            _write(report, run_report(content, watch.as_json()))
    _warn_about_metrics(watch.problem)
    sys.exit(status)


@loadtest.command("sweep", context_settings=FORWARD)
@click.option("-H", "--host", required=True, help="Address of the service.")
@click.option(
    "--target-p99-ms",
    required=True,
    type=click.FloatRange(min=0, min_open=True),
    help="Highest 99th percentile of the latency; refused and failed requests count as slower.",
)
@click.option("--first-rate", default=1.0, show_default=True, help="Requests/s of the first step.")
@click.option("--step-s", default=30, show_default=True, help="Seconds of a step.")
@click.option(
    "--warm-up-s",
    default=5.0,
    show_default=True,
    help="Seconds at the start of a step that are not measured.",
)
@click.option(
    "--steps-around",
    default=10,
    show_default=True,
    help="Steps around the limit, for its confidence interval.",
)
@click.option(
    "--steps-max", default=16, show_default=True, help="Most steps of the search for the limit."
)
@click.option("--cost-per-hour", default=0.0, help="Dollars/hour of everything except the scorers.")
@click.option(
    "--scorer-cost-per-hour", default=0.0, help="Dollars/hour of a scorer; needs --metrics."
)
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="New folder for the results.  [default: var/loadtest/TIME]",
)
@METRICS
@OPTIONS
def sweep(
    host: str,
    folder: Path | None,
    metrics: tuple[str, ...],
    options: tuple[str, ...],
    **chosen: Any,
) -> None:
    """Find the most documents/s that keep the p99 under a target.

    The options of `run` for the load work, too, except --trace: for example, --sizes 20
    --pair-tokens 512 --cv 3. The result is in the folder, as sweep.json and report.html.
    """
    from loadtests.command import LoadTestFailed  # noqa: PLC0415 - optional
    from loadtests.report import sweep_report  # noqa: PLC0415
    from loadtests.service_metrics import MetricsWatch  # noqa: PLC0415
    from loadtests.sweep import Sweep  # noqa: PLC0415

    if any(option.startswith("--trace") for option in options):
        raise click.ClickException("A trace has its own rate, so a sweep cannot replay it.")
    folder = folder or Path("var/loadtest") / datetime.now(UTC).strftime("%Y-%m-%d-%H%M%S")
    if folder.exists() and any(folder.iterdir()):
        raise click.ClickException(f"'{folder}' is not empty; specify a new folder.")
    folder.mkdir(parents=True, exist_ok=True)
    arguments = ["--host", host, *options]
    try:
        with MetricsWatch(metrics) as watch:
            result = Sweep(_sweep_options(chosen), arguments, folder, watch, _show_step).run()
    except LoadTestFailed as error:
        raise click.ClickException(str(error)) from None
    _warn_about_metrics(watch.problem)
    _write(folder / "sweep.json", json.dumps(result, indent=1) + "\n")
    _write(folder / "report.html", sweep_report(result))
    _show_limit(result, folder)


@loadtest.command("trace")
@click.argument("logs", nargs=-1, required=True, type=click.File(encoding="utf-8"))
@click.option("--out", required=True, type=FILE, help="The CSV file to write.")
def trace(logs: tuple[TextIO, ...], out: Path) -> None:
    """Write the requests in the LOGS of all gateways as a trace for `run --trace`.

    A trace has times and sizes, but no texts, keys or tenants.
    """
    from loadtests.traces import write_trace  # noqa: PLC0415 - optional

    try:
        with out.open("w", encoding="utf-8") as file:
            count = write_trace(chain(*logs), file)
    except (OSError, UnicodeDecodeError) as error:
        raise click.ClickException(f"The trace cannot be written: {error}.") from None
    click.echo(f"{count:,} requests.")


@loadtest.command("compare")
@click.argument("first", type=FILE)
@click.argument("second", type=FILE)
@click.option("--report", type=FILE, help="Write an HTML page with plots to this file.")
def compare(first: Path, second: Path, report: Path | None) -> None:
    """Compare two sweeps (sweep.json), or two summaries of runs."""
    from loadtests.compare import compared, named  # noqa: PLC0415 - optional
    from loadtests.report import comparison_report  # noqa: PLC0415

    try:
        contents = named(first, second)
        sentence, columns, rows = compared(contents)
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    print_table(columns, rows, frozenset(columns[1:]))
    click.echo(f"{sentence}.")
    if report is not None:
        _write(report, comparison_report(contents, sentence, columns, rows))


def _sweep_options(chosen: Mapping[str, Any]) -> "SweepOptions":
    from loadtests.sweep import SweepOptions  # noqa: PLC0415 - optional

    names = {"first_rate": "first_rate_per_s"}
    try:
        return SweepOptions(**{names.get(name, name): value for name, value in chosen.items()})
    except ValueError as error:
        raise click.ClickException(f"{error}.") from None


def _show_step(step: Mapping[str, Any]) -> None:
    total, made_by = step["summary"]["total"], step["summary"]["generator"]
    latency = total["latency_ms"] or {"p99": float("nan")}
    click.echo(
        f"{total['documents_per_s']:>9,.1f} documents/s due,"
        f" {total['goodput_documents_per_s']:>9,.1f} answered, p99 {latency['p99']:>9,.1f} ms,"
        f" refused {total['refused_ratio']:.1%}, failed {total['error_ratio']:.1%}:"
        f" {'kept' if step['is_kept'] else 'missed'}"
    )
    if made_by["is_bottleneck"]:
        click.echo("          The load generator was the bottleneck of this step.")


def _show_limit(result: Mapping[str, Any], folder: Path) -> None:
    from loadtests.report import limit_of  # noqa: PLC0415 - optional

    print_facts(
        {
            "Limit": limit_of(result),
            "Saturates first": f"{result['saturates_first']} ({result['because']})",
            "Report": str(folder / "report.html"),
        }
    )
    most = max(step["summary"]["total"]["requests"] for step in result["steps"])
    if most < REQUESTS_ENOUGH:
        click.echo(
            f"No step has more than {most:,} requests, so the p99 misses rare bursts and the limit"
            f" is too high. Use longer steps, for {REQUESTS_ENOUGH:,} requests or more."
        )


def _warn_about_metrics(problem: str | None) -> None:
    if problem is not None:
        click.echo(f"The metrics could not be read: {problem}", err=True)


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"'{file}' cannot be written: {error}.") from None
