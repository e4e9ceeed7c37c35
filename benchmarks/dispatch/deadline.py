"""How much of a job's time may the work ahead of it take, and which constants matter?

Each other constant of the throughput estimate is halved and doubled by itself. Jobs of one tenant
arrive at one simulated replica (`testkit.overload_simulation`) for 300 s, below and above its
capacity. All jobs have a timeout of 30 s. The runs are reproducible.

    .venv/bin/python -m benchmarks.dispatch.deadline --json benchmarks/results/deadline.json
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from serve_app.admission import deadline, throughput
from testkit.overload_simulation import Overload, Result

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)
LOADS = (0.8, 1.2, 2.0, 5.0)
SIZES = {
    "equal jobs of 0.2 s": [2_000],
    "equal jobs of 2 s": [21_000],
    "jobs of 0.1, 0.2 and 1 s": [1_000, 2_000, 10_000],
    "one in 19 takes 8 s": [1_000] * 18 + [80_000],
}
UNTIL_S = 300.0
CONSTANTS = {
    throughput: ("BUSY_TOKENS", "BUSY_S", "WINDOW_S", "VALID_S", "SILENCE_S", "SILENCE_RUNS"),
}
FACTORS = (0.5, 2)


@dataclass(frozen=True, slots=True)
class Row:
    """One simulation."""

    jobs: str
    load: float
    share: float
    result: Result


def simulate() -> Iterator[Row]:
    """Run every combination; changes the constant of this process only."""
    for share in track(SHARES, "Simulating"):
        deadline.AHEAD_SHARE_MAX = share
        for jobs, sizes in SIZES.items():
            for load in LOADS:
                yield Row(jobs, load, share, Overload(sizes, load, UNTIL_S).run())


@dataclass(frozen=True, slots=True)
class Effect:
    """The largest changes that another value of a constant causes in any case."""

    constant: str
    value: float
    done_min: float
    """Smallest ratio of the capacity used for answers to that with the usual value."""

    wait_p50_max: float
    """Largest ratio of the median wait to that with the usual value."""


def effects() -> Iterator[Effect]:
    """Halve and double each constant."""
    cases = [(sizes, load) for sizes in SIZES.values() for load in LOADS]
    usual = [Overload(sizes, load, UNTIL_S).run() for sizes, load in cases]
    for module, names in CONSTANTS.items():
        for name in track(names, "Varying constants"):
            kept = getattr(module, name)
            for factor in FACTORS:
                setattr(module, name, kept * factor)
                found = [Overload(sizes, load, UNTIL_S).run() for sizes, load in cases]
                pairs = list(zip(found, usual, strict=True))
                yield Effect(
                    name,
                    kept * factor,
                    round(min(new.done / old.done for new, old in pairs), 3),
                    round(max(new.wait_s_p50 / old.wait_s_p50 for new, old in pairs), 2),
                )
            setattr(module, name, kept)


def show(rows: list[Row], varied: list[Effect]) -> None:
    table = Table("jobs", "load", "share", "done", "lost", "refused", "late", "p50 s", "p99 s")
    for row in sorted(rows, key=lambda row: (list(SIZES).index(row.jobs), row.load, row.share)):
        found = row.result
        table.add_row(
            row.jobs,
            f"{row.load:g}",
            f"{row.share:g}",
            f"{found.done:.3f}",
            f"{found.lost:.3f}",
            str(found.refused),
            str(found.late),
            f"{found.wait_s_p50:.1f}",
            f"{found.wait_s_p99:.1f}",
        )
    constants = Table("constant", "value", "done, at least", "p50 wait, at most")
    for effect in varied:
        constants.add_row(
            effect.constant,
            f"{effect.value:g}",
            f"{effect.done_min:.3f}",
            f"{effect.wait_p50_max:.2f}",
        )
    Console(highlight=False, width=110).print(table, constants)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the results to this file")
    chosen = parser.parse_args()
    found = list(effects())
    rows = list(simulate())
    show(rows, found)
    if chosen.json is not None:
        result = {
            "until_s": UNTIL_S,
            "rows": [asdict(row) for row in rows],
            "effects": [asdict(effect) for effect in found],
        }
        chosen.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
