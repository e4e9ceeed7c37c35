"""What does a change of the service cost, compared with another checkout of it?

    git worktree add ../before HEAD~1
    python -m benchmarks.service.two_versions --other ../before \\
        --json benchmarks/results/two-versions.json

Both versions run at the same time, each in front of a simulated GPU
(`benchmarks.service.gpu_overhead`), and take turns: an idle service costs the other one little, and
a machine whose speed varies slows both. The figures are ratios of this version to the other one,
the median over pairs of turns.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.machine import Machine, machine
from benchmarks.service.gpu_overhead import LOADS, service_with
from benchmarks.service.overhead import cpu_parts
from testkit.load import ALL, Group, Target, closed_loop
from testkit.load_figures import figures
from testkit.service import COMMAND, environment

ROOT = Path(__file__).parents[2]
GPU_DOCUMENTS_PER_S = 10_000
BATCHES_AT_ONCE = 2
DOLLARS = 1_000


@dataclass(frozen=True, slots=True)
class Turn:
    """One load on one version."""

    documents_per_s: float
    p50_ms: float
    gateway_ms_per_document: float
    """CPU time."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One load on both versions: medians, and the median of the ratios of pairs of turns."""

    clients: int
    documents_per_request: int
    this: Turn
    other: Turn
    ratio: Turn


@dataclass(frozen=True, slots=True)
class Result:
    """The answer, for people and for files."""

    question: str
    date: str
    machine: Machine
    turns: int
    comparisons: list[Comparison]


class Version:
    """A running service of one checkout."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        started = json.loads(self._line())
        self._target = Target(f"{started['address']}/v1/rerank", "embedded", started["key"])

    def turn(self, clients: int, documents: int, seconds: float) -> Turn:
        """Measure one load."""
        gateway_cpu_s: list[float] = []

        def mark() -> float:
            gateway_cpu_s.append(self._gateway_cpu_s())
            return 0.0

        group = Group(ALL, self._target, clients, documents)
        observed = closed_loop([group], seconds, mark)
        found = figures([group], observed)[0]
        counted = found.documents_per_s * (observed.closed - observed.opened)
        before, after = gateway_cpu_s
        assert found.p50_ms is not None
        return Turn(found.documents_per_s, found.p50_ms, 1_000 * (after - before) / counted)

    def _gateway_cpu_s(self) -> float:
        assert self._process.stdin is not None
        print("cpu", file=self._process.stdin, flush=True)
        return float(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


@contextmanager
def version(checkout: Path) -> Iterator[Version]:
    """Run the service of ``checkout`` while the block runs."""
    with subprocess.Popen(
        [sys.executable, __file__, "--serve"],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout)},  # noqa: TID251 - for a child process
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Version(process)
        assert process.stdin is not None
        process.stdin.close()  # Ends it.


def serve() -> None:
    """Run a service, print where it is, and its gateway's CPU time for each line of input."""
    with service_with(GPU_DOCUMENTS_PER_S, BATCHES_AT_ONCE) as service:
        subprocess.run(
            [COMMAND, "credit", "add", "dev", str(DOLLARS), "--reason", "benchmark"],
            env=environment(service.var_dir),
            stdout=subprocess.DEVNULL,
            check=True,
        )
        print(json.dumps({"address": service.address, "key": service.key}), flush=True)
        for _ in sys.stdin:
            print(cpu_parts(service, "rerank")[0], flush=True)


def compare(other: Path, seconds: float, turns: int) -> Iterator[Comparison]:
    """Measure every load in turns; which version is first changes from turn to turn."""
    with ExitStack() as stack:
        running = {
            "this": stack.enter_context(version(ROOT)),
            "other": stack.enter_context(version(other.resolve())),
        }
        for clients, documents in LOADS:
            taken: defaultdict[str, list[Turn]] = defaultdict(list)
            for turn in range(turns):
                for name in sorted(running, reverse=bool(turn % 2)):
                    taken[name].append(running[name].turn(clients, documents, seconds))
            pairs = zip(taken["this"], taken["other"], strict=True)
            ratios = [
                Turn(*(ours / theirs for ours, theirs in zip(_values(a), _values(b), strict=True)))
                for a, b in pairs
            ]
            each = (_median(taken["this"]), _median(taken["other"]), _median(ratios))
            yield Comparison(clients, documents, *each)


def _values(turn: Turn) -> tuple[float, float, float]:
    return turn.documents_per_s, turn.p50_ms, turn.gateway_ms_per_document


def _median(turns: list[Turn]) -> Turn:
    columns = zip(*map(_values, turns), strict=True)
    return Turn(*(round(statistics.median(column), 3) for column in columns))


def main() -> None:
    parser = argparse.ArgumentParser(description="Two versions of the service in turns.")
    parser.add_argument("--other", type=Path, help="another checkout")
    parser.add_argument("--seconds", type=float, default=8, help="of each turn")
    parser.add_argument("--turns", type=int, default=6, help="of each version and load")
    parser.add_argument("--json", type=Path, help="write everything to this file")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve:
        serve()
        return
    if chosen.other is None:
        parser.error("--other is required")
    comparisons = []
    for comparison in compare(chosen.other, chosen.seconds, chosen.turns):
        comparisons.append(comparison)
        load = f"{comparison.clients} x {comparison.documents_per_request}"
        print(f"{load}: ratio {comparison.ratio}", flush=True)
    result = Result(
        question="What does this version cost, compared with another one?",
        date=datetime.now(UTC).date().isoformat(),
        machine=machine(),
        turns=chosen.turns,
        comparisons=comparisons,
    )
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(asdict(result), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
