"""``rerank-serve plan``: the fleet that given traffic needs, and its cost."""

import json
from collections.abc import Sequence
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from serve_app.cli.ledger_access import database_option
from serve_app.cli.plan_profiles import DEFAULT_DEVICE, DEFAULT_DOCUMENTS, Options, profiles
from serve_app.cli.reports import print_table
from serve_app.planning.catalogue import MINILM, MODELS, Core, Instance, instances
from serve_app.planning.profiles import PAIR_TOKENS, PAIR_TOKENS_CV, ProfileError

if TYPE_CHECKING:
    from serve_app.planning.costs import Cost
    from serve_app.planning.sensitivity import Variation
    from serve_app.planning.sizing import Plan
    from serve_app.planning.steps import Step

FILE = click.Path(path_type=Path, dir_okay=False)


@click.command("plan")
@click.option("--requests-per-s", type=float, help="Traffic, in requests per second.")
@click.option("--documents-per-s", type=float, help="Traffic, in documents per second.")
@click.option("--load-run", type=FILE, help="Traffic of a load test: its JSON summary.")
@click.option(
    "--metrics",
    multiple=True,
    metavar="URL",
    help="Traffic and speed of a running service; repeat it for the metrics of each node.",
)
@click.option(
    "--metrics-s",
    type=click.FloatRange(min=1),
    default=60,
    show_default=True,
    help="Seconds between the two readings of the metrics.",
)
@click.option("--ledger-month", metavar="YYYY-MM", help="Traffic of the month's busiest day.")
@database_option
@click.option(
    "--documents",
    metavar="SIZES",
    help=f"Documents per request, such as 20, or 5:80,50:20 with weights.  "
    f"[default: {DEFAULT_DOCUMENTS}]",
)
@click.option(
    "--tokens", type=float, help=f"Mean tokens of a pair.  [default: {PAIR_TOKENS:g}, MS MARCO]"
)
@click.option(
    "--tokens-cv",
    type=float,
    help=f"Coefficient of variation of these tokens.  [default: {PAIR_TOKENS_CV:g}]",
)
@click.option(
    "--burstiness",
    type=float,
    help="Coefficient of variation of the times between requests.  [default: 1, Poisson]",
)
@click.option(
    "--scorer",
    metavar="DEVICE|FILE",
    help="A device with a published speed, or a JSON result of benchmarks.engine.throughput or "
    f"benchmarks.gpu.  [default: {DEFAULT_DEVICE}]",
)
@click.option(
    "--model",
    type=click.Choice(MODELS),
    default=MINILM,
    show_default=True,
    help="Model of a device's published speed.",
)
@click.option("--start-s", type=float, help="Time until a new scorer computes.  [default: 60]")
@click.option("--gateway", type=FILE, help="A JSON result of benchmarks.service.gpu_overhead.")
@click.option(
    "--database",
    metavar="KIND|FILE",
    default="postgresql",
    show_default=True,
    help="postgresql, sqlite, or a JSON result of benchmarks.ledger.throughput.",
)
@click.option(
    "--p99-ms",
    type=float,
    default=1_000,
    show_default=True,
    help="Highest 99th percentile of the latency.",
)
@click.option(
    "--spare",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="Scorers and gateways in addition to those needed.",
)
@click.option("--price-per-hour", type=click.FloatRange(min=0), help="Dollars/hour of one scorer.")
@click.option(
    "--price",
    type=click.FloatRange(min=0, min_open=True),
    default=0.008,
    show_default=True,
    help="Dollars that clients pay for 1,000 documents.",
)
@click.option(
    "--step",
    type=float,
    help="Also simulate autoscaling when the traffic grows by this factor at once.",
)
@click.option(
    "--sensitivity", is_flag=True, help="Also plan with changed speeds, tokens and bursts."
)
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
@click.option(
    "--plot", type=FILE, help="Write a plot of latency and use against load to this file."
)
def plan(**chosen: Any) -> None:
    """Plan how many scorers and gateways given traffic needs, and what they cost.

    The plan is simulated with the service's own rules for admission, queues and batches. It states
    where each speed comes from. Published speeds are of other programs: measure your own GPU with
    benchmarks.gpu.
    """
    names = {field.name for field in fields(Options)}
    options = Options(**{name: value for name, value in chosen.items() if name in names})
    try:
        from serve_app.planning.sizing import Demand  # noqa: PLC0415 - an extra
        from serve_app.planning.sizing import plan as smallest  # noqa: PLC0415 - an extra
    except ImportError:
        raise click.ClickException(
            "Plans are simulated with simpy: pip install 'rerank-serve[plan]'"
        ) from None
    try:
        traffic, service = profiles(options)
        demand = Demand(traffic, chosen["p99_ms"] / 1_000, chosen["spare"])
        found = smallest(demand, service)
        extras = _extras(found, chosen)
    except ProfileError as error:
        raise click.ClickException(str(error)) from None
    if chosen["plot"] is not None:
        _draw(found, chosen["plot"])
    if chosen["as_json"]:
        from serve_app.planning.report import as_json  # noqa: PLC0415 - an extra

        click.echo(json.dumps(as_json(found, *extras), indent=2))
    else:
        _print(found, *extras)


def _extras(
    found: "Plan", chosen: dict[str, Any]
) -> "tuple[list[Cost], list[Variation], Step | None]":
    from serve_app.planning.costs import cost  # noqa: PLC0415 - an extra
    from serve_app.planning.sensitivity import variations  # noqa: PLC0415 - as above
    from serve_app.planning.steps import step  # noqa: PLC0415 - as above

    machines = _machines(found.service.scorer.name, chosen["price_per_hour"])
    return (
        [cost(found, machine, chosen["price"]) for machine in machines],
        list(variations(found.demand, found.service)) if chosen["sensitivity"] else [],
        None if chosen["step"] is None else step(found, chosen["step"]),
    )


def _machines(device: str, price_per_hour: float | None) -> list[Instance]:
    if price_per_hour is None:
        return instances(device)
    today = datetime.now(UTC).date()
    return [Instance("yours", device, price_per_hour, "--price-per-hour", today)]


def _draw(found: "Plan", file: Path) -> None:
    try:
        from serve_app.cli.plan_plot import draw  # noqa: PLC0415 - an extra
    except ImportError:
        raise click.ClickException(
            "The plot needs matplotlib: pip install 'rerank-serve[plan]'"
        ) from None
    try:
        draw(found, file)
    except (OSError, ValueError) as error:
        raise click.ClickException(f"'{file}' cannot be written: {error}") from None


def _print(
    found: "Plan",
    costs: "Sequence[Cost]",
    variations: "Sequence[Variation]",
    step: "Step | None",
) -> None:
    traffic, simulated = found.demand.traffic, found.simulated
    click.echo(
        f"{_rate(traffic.requests_per_s)} requests/s = {traffic.documents_per_s:,.0f} documents/s "
        f"of {traffic.pair_tokens:.0f} tokens, burstiness {traffic.burstiness:g}"
    )
    _print_parts(found)
    click.echo(
        f"Latency without the spare replicas: p50 {1_000 * simulated.p50_s:,.0f} ms, "
        f"p99 {1_000 * simulated.p99_s:,.0f} ms, at most {1_000 * found.demand.p99_s:,.0f} ms."
    )
    first, limit = next(iter(found.limits.items()))
    click.echo(f"First to reach its limit: {first}, at {_rate(limit)} requests/s.")
    click.echo(f"The charges of 90 days take {found.database_gb:,.0f} GB in the database.")
    _print_costs(found, costs)
    if variations:
        _print_variations(variations)
    if step is not None:
        _print_step(step, found.slices)
    click.echo(f"Speed of a scorer: {found.service.scorer.source}.")
    click.echo(f"Work of a gateway: {found.service.gateway.source}.")
    click.echo(f"Work of the database: {found.service.database.source}.")


def _rate(per_s: float) -> str:
    return f"{per_s:,.0f}" if per_s >= 100 else f"{per_s:.3g}"


def _print_variations(variations: "Sequence[Variation]") -> None:
    rows = [(each.what, *_sizes(each.plan)) for each in variations]
    numbers = ("Scorers", "Gateways")
    print_table(("If", *numbers, "First limit"), rows, frozenset(numbers))


def _sizes(found: "Plan | None") -> tuple[str, str, str]:
    if found is None:
        return ("no fleet", "", "")
    return f"{found.fleet.scorers:,}", f"{found.fleet.gateways:,}", found.breaks_first


def _print_parts(found: "Plan") -> None:
    scorer, busy, limits = found.service.scorer, found.simulated.busy, found.limits
    fleet, needed = found.fleet, found.needed
    numbers = {
        "scorers": (f"{scorer.name} ({scorer.basis})", needed.scorers, fleet.scorers),
        "gateways": ("a core each", needed.gateways, fleet.gateways),
        "database": (found.service.database.name, needed.database_cores, fleet.database_cores),
    }
    rows = [
        (
            "database cores" if part == "database" else part,
            kind,
            f"{least:,}",
            f"{most:,}",
            f"{busy[part]:.0%}",
            _rate(limits[part]),
        )
        for part, (kind, least, most) in numbers.items()
    ]
    columns = ("Needed", "With spare", "Busy", "Limit, requests/s")
    print_table(("Part", "Kind", *columns), rows, frozenset(columns))


def _print_costs(found: "Plan", costs: "Sequence[Cost]") -> None:
    if not costs:
        click.echo(f"No price is known for {found.service.scorer.name}; give --price-per-hour.")
        return
    rows = [
        (
            f"{each.instance.name}, ${each.instance.price_per_hour:,.4g} per hour",
            f"${each.scorers_per_hour:,.2f}",
            f"${each.cores_per_hour:,.2f}",
            f"${each.per_1000_documents:.5f}",
            f"${each.price_per_1000_documents:.5f}",
            f"{each.margin:.0%}",
        )
        for each in costs
    ]
    numbers = ("Scorers/h", "Cores/h", "Cost of 1,000 documents", "Price", "Margin")
    print_table(("Machine", *numbers), rows, frozenset(numbers))
    for each in costs:
        click.echo(
            f"Price of {each.instance.name}: {each.instance.source}, {each.instance.read_on}."
        )
    core = Core()
    click.echo(
        f"Price of a core: {core.name}, ${core.price_per_hour:g} per hour, {core.source}, "
        f"{core.read_on}."
    )


def _print_step(step: "Step", slices: int) -> None:
    found = step.simulated
    most = max(running for _, running in found.scorers)
    scorers = "scorer" if step.before == 1 else "scorers"
    growth = f"the {step.before} {scorers} suffice"
    if step.full_after_s is not None:
        growth = f"{step.before} {scorers} grow to {most} within {step.full_after_s:.0f} s"
    of_slice = f" in each of {slices} slices" if slices > 1 else ""
    click.echo(
        f"If the traffic grows {step.factor:g} times at once, {growth}{of_slice}; until then "
        f"{found.refused_ratio:.1%} of the requests are refused, and p99 is {found.p99_s:,.1f} s."
    )
