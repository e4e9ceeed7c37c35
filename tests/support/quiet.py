"""Half an hour without faults: ``python -m tests.support.quiet --json FILE``.

A real Prometheus with the real rules, scraped every 15 s, watches a real service with a light,
steady load. The result lists the alerts that were pending or fired.
"""

import json
import statistics
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from testkit.prometheus import Prometheus
from testkit.service import wait_for
from tests.support.scraped import Scraped, scraped

SCRAPE_S = 15.0
"""As in ``cluster/prometheus/prometheus.yaml``."""

SETTLE_S = 120.0
"""Time for Ray's first reports and the first scrapes."""


def watch(running: Scraped, minutes: float, every_s: float) -> dict[str, Any]:
    """Send requests for ``minutes``, and return what Prometheus saw in that time."""
    time.sleep(SETTLE_S)
    statuses: Counter[int] = Counter()
    seconds: list[float] = []

    def ask() -> None:
        began_s = time.monotonic()
        statuses[running.ask(5, model="embedded")] += 1
        seconds.append(time.monotonic() - began_s)

    start = time.time()  # noqa: TID251 - Prometheus has wall time
    with running.repeating(ask, every_s):
        time.sleep(60 * minutes)
    end = time.time()  # noqa: TID251 - as above
    return {
        "statuses": {str(status): number for status, number in statuses.items()},
        "p50_ms": round(1_000 * statistics.median(seconds)),
        "p99_ms": round(1_000 * statistics.quantiles(seconds, n=100)[98]),
        "scrapes": _scrapes(running.prometheus, start, end),
        "fired": _alerts(running.prometheus, "firing", start, end),
        "pending": _alerts(running.prometheus, "pending", start, end),
    }


def _scrapes(prometheus: Prometheus, start: float, end: float) -> dict[str, int]:
    """Return the number of successful scrapes by job."""
    series = prometheus.query_range("up == 1", start, end, SCRAPE_S)
    return {each["metric"]["job"]: len(each["values"]) for each in series}


def _alerts(prometheus: Prometheus, state: str, start: float, end: float) -> dict[str, int]:
    """Return the number of seconds in which each alert was in ``state``."""
    series = prometheus.query_range(f'ALERTS{{alertstate="{state}"}}', start, end, SCRAPE_S)
    found: Counter[str] = Counter()
    for each in series:
        found[each["metric"]["alertname"]] += round(SCRAPE_S * len(each["values"]))
    return dict(sorted(found.items()))


@click.command()
@click.option("--minutes", default=30.0, show_default=True)
@click.option("--every-s", default=1.0, show_default=True, help="Pause between two requests.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="File for the result.")
def main(minutes: float, every_s: float, path: Path | None) -> None:
    """Watch a service without faults."""
    with (
        tempfile.TemporaryDirectory() as folder,
        scraped(Path(folder), factor=1, scrape_s=SCRAPE_S) as running,
    ):
        wait_for(running.prometheus.targets_are_up, 60, "the first scrape")
        result = {
            "question": "Which alerts fire while all is well?",
            "date": datetime.now(UTC).date().isoformat(),
            "minutes": minutes,
            **watch(running, minutes, every_s),
        }
    text = json.dumps(result, indent=2) + "\n"
    click.echo(text)
    if path is not None:
        path.write_text(text)


if __name__ == "__main__":
    main()
