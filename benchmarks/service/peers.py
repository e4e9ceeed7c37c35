"""Which is faster under the same load, and better for small requests: our service or a peer's?

    python -m benchmarks.service.peers --json benchmarks/results/serving.json

The peer is Infinity, which the first run installs (`benchmarks.service.peer_server`).
Both serve the same model in the same number format. Its weights are random, because the speed does
not depend on them. Only one server runs at a time. The clients (`testkit.load`) run on the same
machine.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.engine import minilm
from benchmarks.machine import Machine, machine
from benchmarks.service import peer_server
from benchmarks.service.peer_server import Peer, PeerError
from serve_app.deployments.local_ray import free_port
from serve_app.engine.device import pick_device, pick_precision
from testkit.load import (
    ALL,
    Group,
    Observed,
    Server,
    Target,
    bodies,
    closed_loop,
    open_loop,
    send_each,
)
from testkit.load_figures import GroupFigures, figures
from testkit.service import ROOT, Service

SERVERS = OURS, FIFO, PEER = "ours", "ours, fifo", "peer"
FIGURES = {
    "requests": "requests",
    "late": "without scores",
    "documents_per_s": "documents/s",
    "p50_ms": "p50 ms",
    "p95_ms": "p95 ms",
    "p99_ms": "p99 ms",
}

ONE, FIVE, MANY = "1 client x 1", "1 client x 5", "8 clients x 50"
MIXED, STEADY, OPEN, WEIGHTS = "mixed", "mixed, small ones at 1/s", "open loop", "weights"
SMALL, LARGE = "5 documents", "500 documents"
WEIGHT = {1: "weight 1", 3: "weight 3"}

STEADY_S = 120.0
"""Long enough for some large requests to be answered."""

OPEN_DOCUMENTS = 20
OPEN_SHARE = 0.6
"""Rate of the open loop, as a share of the slower server's speed."""

MODEL = "measured"
TIMEOUT_S = 100  # The longest that the service allows.
CREDIT_DOLLARS = "100"


@dataclass(frozen=True, slots=True)
class Measured:
    """The figures of one server under one load."""

    turn: int
    server: str
    load: str
    seconds: float
    groups: list[GroupFigures]
    cpu_s: float
    """CPU time of all the server's processes, in these seconds."""

    memory_mib: int
    """Memory of all its processes, after the load."""


@dataclass(frozen=True, slots=True)
class Ratios:
    """Ratios of medians, ours to the peer's unless stated otherwise; ``None``: one is missing."""

    documents_per_s_ratio: float | None
    mixed_documents_per_s_ratio: float | None
    small_p99_ratio: float | None
    """p99 of the mixed load's small requests."""

    one_client_5_documents_p50_ms: float | None
    """Latency of our service, not a ratio."""

    peer_one_client_5_documents_p50_ms: float | None
    large_against_fifo: float | None
    """Documents/s of large requests while small ones come at a fixed rate: ours to ours with plain
    FIFO."""

    all_against_fifo: float | None
    """The same for all requests of the mixed load, where small clients that wait less send more."""

    heavy_share: float | None
    """Share of documents that a tenant with weight 3 gets in competition with one of weight 1."""


@dataclass(frozen=True, slots=True)
class Result:
    """The result of the benchmark."""

    question: str
    date: str
    machine: Machine
    versions: dict[str, str]
    peer: str
    """The peer and its version, or the reason why there is none."""

    precision: str
    model: str
    scores_differ_by: float | None
    """Largest difference of `OPEN_DOCUMENTS` scores; shows whether both serve the same model."""

    ratios: Ratios
    loads: list[Measured]


def closed_groups(target: Target) -> dict[str, list[Group]]:
    """Return the closed-loop loads for both servers."""
    return {
        ONE: [Group(ALL, target, 1, 1)],
        FIVE: [Group(ALL, target, 1, 5)],
        MANY: [Group(ALL, target, 8, 50)],
        MIXED: [Group(LARGE, target, 3, 500), Group(SMALL, target, 4, 5, think_s=0.2)],
    }


@dataclass(slots=True)
class Benchmark:
    """The measurement's parameters, and its results so far."""

    folder: Path
    """Folder of the run, which contains the model."""

    precision: str
    device: str
    seconds: float
    quick: bool
    peer: Peer | None
    peer_line: str
    turn: int = 1
    loads: list[Measured] = field(default_factory=list)
    scores: dict[str, list[float]] = field(default_factory=dict)
    """Scores of one request, by server."""

    @property
    def model(self) -> Path:
        return self.folder / "model"

    def run(self, turns: int) -> None:
        with Progress() as progress:
            steps = self._steps()
            task = progress.add_task("", total=turns * len(steps))
            for self.turn in range(1, turns + 1):
                for name, step in steps.items():
                    progress.update(task, description=f"turn {self.turn}: {name}")
                    step()
                    progress.advance(task)

    def _steps(self) -> dict[str, Callable[[], None]]:
        """Return the steps of a turn. The open loop needs both servers' speeds, so it is last."""
        steps: dict[str, Callable[[], None]] = {
            PEER: lambda: self._peers(self._closed),
            OURS: self._ours,
            FIFO: self._fifo,
        }
        if not self.quick:
            steps["peer, open loop"] = lambda: self._peers(self._open)
        return steps

    def _peers(self, measure: Callable[[Server], None]) -> None:
        if self.peer is None:
            return
        try:
            with peer_server.running(
                self.peer, self.model, self.precision, self.device, free_port()
            ) as running:
                target = Target(f"{running.address}/rerank", peer_server.MODEL)
                server = Server(PEER, target, running.pid)
                self._warm_up(server)
                measure(server)
        except PeerError as error:
            self.peer, self.peer_line = None, str(error)
            print(f"Only our service is measured: {error}")

    def _ours(self) -> None:
        with self._service("serve_app.app:gateways") as (service, target):
            server = Server(OURS, target, service.process.pid)
            self._warm_up(server)
            self._closed(server)
            if not self.quick:
                self._steady(server)
                self._closed_loop(server, WEIGHTS, weight_groups(service, target))
                self._open(server)

    def _fifo(self) -> None:
        with self._service("benchmarks.service.fifo:gateways") as (service, target):
            server = Server(FIFO, target, service.process.pid)
            self._warm_up(server)
            self._closed_loop(server, MIXED, closed_groups(target)[MIXED])
            if not self.quick:
                self._steady(server)

    def _steady(self, server: Server) -> None:
        """Run as many large clients as in the mixed load, and one small request per second."""
        groups = [
            Group(LARGE, server.target, 3, 500),
            # Enough clients that each gets its answer before its next turn to send.
            Group(SMALL, server.target, 90, 5, every_s=90.0),
        ]
        observed = closed_loop(groups, max(self.seconds, STEADY_S), server.cpu_s)
        self._keep(server, STEADY, groups, observed)

    @contextmanager
    def _service(self, import_path: str) -> Iterator[tuple[Service, Target]]:
        config = service_config(self.model, self.precision, import_path)
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            service = Service.start(Path(folder), config, free_port())
            try:
                yield service, Target(f"{service.address}/v1/rerank", MODEL, service.key)
            finally:
                service.stop()

    def _warm_up(self, server: Server) -> None:
        """Send the same requests to each server, and keep the scores of the last one."""
        for documents in (1, 5, 50, OPEN_DOCUMENTS):
            group = Group(ALL, server.target, 1, documents)
            answers = send_each(group, bodies(group, documents)[:3])
        assert answers[-1]
        results = sorted(answers[-1], key=lambda result: int(result["index"]))
        self.scores[server.name] = [result["relevance_score"] for result in results]

    def _closed(self, server: Server) -> None:
        for load, groups in closed_groups(server.target).items():
            self._closed_loop(server, load, groups)

    def _closed_loop(self, server: Server, load: str, groups: list[Group]) -> None:
        self._keep(server, load, groups, closed_loop(groups, self.seconds, server.cpu_s))

    def _open(self, server: Server) -> None:
        many = [each for each in self.loads if (each.turn, each.load) == (self.turn, MANY)]
        slower = min(each.groups[0].documents_per_s for each in many)
        rate = OPEN_SHARE * slower / OPEN_DOCUMENTS
        group = Group(ALL, server.target, 0, OPEN_DOCUMENTS)
        self._keep(server, OPEN, [group], open_loop(group, rate, self.seconds, server.cpu_s))

    def _keep(self, server: Server, load: str, groups: list[Group], observed: Observed) -> None:
        self.loads.append(
            Measured(
                self.turn,
                server.name,
                load,
                round(observed.closed - observed.opened, 2),
                figures(groups, observed),
                round(observed.cpu_s, 2),
                server.memory_mib(),
            )
        )


def service_config(model: Path, precision: str, import_path: str) -> dict[str, Any]:
    """Return cluster/local.yaml with our model, and limits that reject nothing."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "cluster/local.yaml").read_text())
    scorers, gateways = config["applications"]
    checkpoint = {"source": str(model), "precision": precision}
    scorers["args"] = {"checkpoint": checkpoint}
    gateways["import_path"] = import_path
    gateways["deployments"][0]["user_config"] = {
        "models": [
            {
                "id": MODEL,
                "application": scorers["name"],
                "checkpoint": checkpoint,
                "price_micro_dollars_per_document": 1,  # So that the initial credit lasts.
            }
        ],
        "request_timeout_s": TIMEOUT_S,
        "request_timeout_s_max": TIMEOUT_S,
    }
    return config


def weight_groups(service: Service, target: Target) -> list[Group]:
    """Create a tenant for each weight; return groups of its clients."""
    groups = []
    for weight, name in WEIGHT.items():
        service.command("tenants", "add", name, "--credit", CREDIT_DOLLARS)
        service.command("tenants", "set-weight", name, str(weight))
        key = service.command("keys", "create", name).strip()
        groups.append(Group(name, replace(target, key=key), 4, 100))
    return groups


Key = tuple[str, str, str]
"""Server, load, group."""


def medians(loads: Sequence[Measured], figure: str) -> dict[Key, float]:
    """Return the median of ``figure`` over the turns, where groups have it."""
    found: dict[Key, list[float]] = {}
    for load in loads:
        for group in load.groups:
            value = getattr(group, figure)
            if value is not None:
                found.setdefault((load.server, load.load, group.name), []).append(value)
    return {key: statistics.median(values) for key, values in found.items()}


def quotient(values: Mapping[Key, float], of: Key, server: str) -> float | None:
    """Return a value divided by the same value of ``server``, if both exist."""
    ours, other = values.get(of), values.get((server, *of[1:]))
    return round(ours / other, 3) if ours is not None and other else None


def ratios(loads: Sequence[Measured]) -> Ratios:
    speed, p50, p99 = (medians(loads, each) for each in ("documents_per_s", "p50_ms", "p99_ms"))
    heavy, both = (speed.get((OURS, WEIGHTS, name)) for name in (WEIGHT[3], ALL))
    return Ratios(
        quotient(speed, (OURS, MANY, ALL), PEER),
        quotient(speed, (OURS, MIXED, ALL), PEER),
        quotient(p99, (OURS, MIXED, SMALL), PEER),
        p50.get((OURS, FIVE, ALL)),
        p50.get((PEER, FIVE, ALL)),
        quotient(speed, (OURS, STEADY, LARGE), FIFO),
        quotient(speed, (OURS, MIXED, ALL), FIFO),
        None if heavy is None or not both else round(heavy / both, 3),
    )


def differ_by(scores: Mapping[str, Sequence[float]]) -> float | None:
    """Return the largest difference between our scores and the peer's."""
    if PEER not in scores:
        return None
    pairs = zip(scores[OURS], scores[PEER], strict=True)
    return max(abs(ours - peers) for ours, peers in pairs)


def show(result: Result) -> None:
    """Print all servers side by side, with the medians of the turns."""
    table = Table("load", "requests of", "figure", *SERVERS, "ours / peer's")
    for row in rows(result.loads):
        table.add_row(*row)
    console = Console(highlight=False, width=max(100, Console().width))
    console.print(table)
    for name, value in asdict(result.ratios).items():
        console.print(f"{name}: {_text(value)}")
    console.print(f"{result.precision}; {result.model}; peer: {result.peer}")


def rows(loads: Sequence[Measured]) -> Iterator[list[str]]:
    """Yield the table's rows: each figure of each group, then each load's CPU and memory."""
    for load in dict.fromkeys(each.load for each in loads):
        taken = [each for each in loads if each.load == load]
        for figure, name in FIGURES.items():
            values = medians(taken, figure)
            for group in dict.fromkeys(key[2] for key in values):
                yield [load, group, name, *_side_by_side(values, load, group)]
        for figure, name in (("cpu_s", "CPU s"), ("memory_mib", "memory MiB")):
            found = {(each.server, load, ""): float(getattr(each, figure)) for each in taken}
            yield [load, "", name, *_side_by_side(found, load, "")]


def _side_by_side(values: Mapping[Key, float], load: str, group: str) -> list[str]:
    of_each = [values.get((server, load, group)) for server in SERVERS]
    return [_text(value) for value in (*of_each, quotient(values, (OURS, load, group), PEER))]


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:,.5g}"


def measure(chosen: argparse.Namespace) -> Result:
    device = pick_device()
    precision = str(pick_precision(chosen.precision, device)).removeprefix("torch.")
    versions = {name: version(name) for name in ("torch", "ray", "openvino")}
    try:
        peer = peer_server.installed(chosen.peer_python)
        peer_line = f"infinity-emb {peer.versions['infinity-emb']}"
        versions |= {f"peer's {name}": each for name, each in peer.versions.items()}
    except PeerError as error:
        peer, peer_line = None, str(error)
        print(f"Only our service is measured: {error}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        minilm.write(folder / "model")
        benchmark = Benchmark(
            folder, precision, device.type, chosen.seconds, chosen.quick, peer, peer_line
        )
        benchmark.run(chosen.turns)
    return Result(
        question="Our service and a peer's: which is faster, and which favours small requests?",
        date=datetime.now(UTC).date().isoformat(),
        machine=machine(),
        versions=versions,
        peer=benchmark.peer_line,
        precision=precision,
        model="BERT, 12 layers, hidden 384, 12 heads, random weights",
        scores_differ_by=differ_by(benchmark.scores),
        ratios=ratios(benchmark.loads),
        loads=benchmark.loads,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Our service compared with a peer's.")
    parser.add_argument("--turns", type=int, default=1, help="repetitions of everything")
    parser.add_argument("--seconds", type=float, help="per load; default 20, with --quick 6")
    parser.add_argument("--quick", action="store_true", help="skip the open loop and the weights")
    parser.add_argument("--precision", default="auto", help="auto, float32, bfloat16 or float16")
    parser.add_argument("--peer-python", type=Path, help="interpreter of a venv with Infinity")
    parser.add_argument("--json", type=Path, help="write everything to this file")
    chosen = parser.parse_args()
    chosen.seconds = chosen.seconds or (6.0 if chosen.quick else 20.0)
    result = measure(chosen)
    show(result)
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(asdict(result), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
