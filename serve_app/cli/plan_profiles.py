"""The profiles that the options of ``rerank-serve plan`` describe."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import httpx

from serve_app.cli.ledger_access import open_books, reading_long
from serve_app.domain.units import Moment, Seconds
from serve_app.ledger.money.calendar import bounds_of
from serve_app.ledger.reports.usage import Grouping, UsageFilter, UsageRow, usage
from serve_app.planning import catalogue, readers
from serve_app.planning.profiles import (
    POSTGRESQL,
    SQLITE,
    Database,
    Gateway,
    ProfileError,
    Scorer,
    Service,
    Traffic,
)

METRICS_TIMEOUT_S = 10.0
SECONDS_PER_DAY = 86_400
DEFAULT_DOCUMENTS = "20"
DEFAULT_DEVICE = "V100"


@dataclass(frozen=True, slots=True)
class Options:
    """The options as typed; ``None`` if left out."""

    requests_per_s: float | None = None
    documents_per_s: float | None = None
    load_run: Path | None = None
    metrics: Sequence[str] = ()
    metrics_s: float = 60.0
    ledger_month: str | None = None
    database_url: str | None = None
    documents: str | None = None
    tokens: float | None = None
    tokens_cv: float | None = None
    burstiness: float | None = None
    scorer: str | None = None
    model: str = catalogue.MINILM
    start_s: float | None = None
    gateway: Path | None = None
    database: str = "postgresql"


def profiles(options: Options) -> tuple[Traffic, Service]:
    """Return the traffic and the speeds.

    Raises: ClickException if an option is missing, or a file or a service cannot be read;
    ProfileError if a value cannot be used.
    """
    sources = {
        "--requests-per-s": options.requests_per_s is not None,
        "--documents-per-s": options.documents_per_s is not None,
        "--load-run": options.load_run is not None,
        "--metrics": bool(options.metrics),
        "--ledger-month": options.ledger_month is not None,
    }
    if sum(sources.values()) != 1:
        raise click.UsageError(f"Give one of {', '.join(sources)}.")
    if options.metrics:
        return _of_metrics(options)
    return _changed(_traffic(options), options), _service(options, None)


def _traffic(options: Options) -> Traffic:
    if options.load_run is not None:
        return readers.load_run(read_json(options.load_run), str(options.load_run))
    if options.ledger_month is not None:
        return _of_ledger(options.ledger_month, options.database_url)
    sizes = parse_sizes(options.documents or DEFAULT_DOCUMENTS)
    if options.requests_per_s is not None:
        return Traffic(options.requests_per_s, sizes)
    assert options.documents_per_s is not None
    per_request = Traffic(1.0, sizes).documents_per_request
    return Traffic(options.documents_per_s / per_request, sizes)


def _changed(traffic: Traffic, options: Options) -> Traffic:
    changes: dict[str, Any] = {
        "documents": None if options.documents is None else parse_sizes(options.documents),
        "pair_tokens": options.tokens,
        "pair_tokens_cv": options.tokens_cv,
        "burstiness": options.burstiness,
    }
    return replace(traffic, **{name: each for name, each in changes.items() if each is not None})


def parse_sizes(typed: str) -> dict[int, float]:
    """Read sizes with weights, such as ``5:80,50:20``. Raises: BadParameter."""
    sizes: dict[int, float] = {}
    try:
        for part in typed.split(","):
            size, _, weight = part.partition(":")
            sizes[int(size)] = float(weight or 1)
    except ValueError:
        raise click.BadParameter(f"'{typed}' is not a list such as 5:80,50:20.") from None
    return sizes


def _service(options: Options, measured: Scorer | None) -> Service:
    if options.scorer is None and measured is not None:
        scorer = measured
    else:
        scorer = _scorer(options.scorer or DEFAULT_DEVICE, options.model)
    if options.start_s is not None:
        scorer = replace(scorer, start_s=Seconds(options.start_s))
    gateway = Gateway()
    if options.gateway is not None:
        gateway = readers.gateway(read_json(options.gateway), str(options.gateway))
    return Service(scorer, gateway, _database(options.database))


def _scorer(named: str, model: str) -> Scorer:
    if named.endswith(".json"):
        return readers.scorer(read_json(Path(named)), named)
    return catalogue.scorer(model, named)


def _database(named: str) -> Database:
    if named.endswith(".json"):
        return readers.database(read_json(Path(named)), named)
    known = {"postgresql": POSTGRESQL, "sqlite": SQLITE}
    if named not in known:
        raise click.BadParameter(f"'{named}' is not postgresql, sqlite or a JSON file.")
    return known[named]


def read_json(file: Path) -> dict[str, Any]:
    """Raises: ClickException."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise click.ClickException(f"'{file}' cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise click.ClickException(f"'{file}' is not a JSON object.")
    return found


def _of_metrics(options: Options) -> tuple[Traffic, Service]:
    before = _scraped(options.metrics)
    time.sleep(options.metrics_s)
    after = _scraped(options.metrics)
    grown = readers.growth(before, after)
    traffic = readers.traffic_of_metrics(grown, options.metrics_s)
    measured = readers.scorer_of_metrics(grown, ", ".join(options.metrics))
    return _changed(traffic, options), _service(options, measured)


def _scraped(urls: Sequence[str]) -> str:
    try:
        answers = [httpx.get(url, timeout=METRICS_TIMEOUT_S).raise_for_status() for url in urls]
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise click.ClickException(f"The metrics cannot be read: {error}") from None
    return "\n".join(answer.text for answer in answers)


def _of_ledger(month: str, database_url: str | None) -> Traffic:
    """Return the traffic of the month's busiest day, spread evenly."""
    try:
        named = datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC)
    except ValueError:
        raise click.BadParameter(f"'{month}' is not a month like 2026-11.") from None
    since, until = bounds_of(named.year * 100 + named.month)
    which = UsageFilter(since=Moment(since), until=Moment(until))
    with open_books(database_url, reading_long) as connection:
        days = usage(connection, which, Grouping.DAY)
    if not days:
        raise ProfileError(f"The ledger has no requests in {month}.")
    return of_day(max(days, key=lambda day: day.tokens))


def of_day(day: UsageRow) -> Traffic:
    """Raises: ProfileError if no document was scored."""
    if not day.documents:
        raise ProfileError("No document was scored on the busiest day.")
    size = max(1, round(day.documents / day.requests))
    return Traffic(day.requests / SECONDS_PER_DAY, {size: 1.0}, day.tokens / day.documents)
