"""Does the adaptive inflight window beat a fixed number of portions per replica?

Gateways with the real fair queue and window send portions to simulated replicas, on a virtual
clock. One tenant keeps every gateway saturated; another sends a small job every 0.37 s, whose
waiting time shows how much work cannot be overtaken. Replicas batch what waits, up to the target
time of a batch. Runs are reproducible.

    .venv/bin/python -m benchmarks.dispatch.inflight_window --json benchmarks/results/window.json
"""

import argparse
import heapq
import itertools
import json
import random
import statistics
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from serve_app.dispatch.inflight_window import Answered, InflightWindow
from serve_app.dispatch.portion_queue import PortionQueue
from serve_app.dispatch.replica_load import ReplicaLoad
from serve_app.domain.model import PortionScores, ServiceTier
from serve_app.domain.portion_size import tokens_in_time
from serve_app.domain.priority import Claim
from serve_app.domain.units import Instant, RequestId, Seconds, TenantId, Tokens

PORTION_TOKENS_MAX = Tokens(16_384)
ROUND_TRIP_S = 0.004
WARM_UP_S, UNTIL_S = 10.0, 60.0
SMALL_JOB_TOKENS, SMALL_JOB_EVERY_S = 300, 0.37


@dataclass(frozen=True, slots=True)
class Device:
    """A replica's device, and the large jobs that saturate it."""

    name: str
    tokens_per_s: float
    pass_s: float
    """Time that a batch takes in addition to its tokens."""

    job_tokens: int
    clients: int
    """Per gateway."""


DEVICES = (
    Device("two CPU cores", 3_300, 0.001, 8_000, 16),
    Device("V100", 200_000, 0.002, 60_000, 32),
    Device("H100", 1_500_000, 0.001, 60_000, 32),
)
SHAPES = ((1, 1), (1, 4), (2, 2), (4, 4), (8, 2))
"""Gateways and replicas."""


class FixedWindow(InflightWindow):
    """Allows a fixed number of portions per replica."""

    def __init__(self, portions: int) -> None:
        super().__init__(PORTION_TOKENS_MAX)
        self._portions = portions

    def tokens(self, now: Instant) -> Tokens:
        super().tokens(now)  # Forgets old replicas.
        return Tokens(max(1, len(self._replicas)) * self._portions * self.portion_tokens)


WINDOWS: dict[str, Callable[[], InflightWindow]] = {
    "adaptive": lambda: InflightWindow(PORTION_TOKENS_MAX),
    "2 portions": lambda: FixedWindow(2),
    "3 portions": lambda: FixedWindow(3),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One simulation: throughput as a share of the capacity, and waits of small jobs."""

    device: str
    gateways: int
    replicas: int
    window: str
    throughput: float
    wait_ms_p50: float
    wait_ms_p99: float


@dataclass(frozen=True, slots=True)
class _Portion:
    job: RequestId
    tokens: Tokens


class _Gateway(PortionQueue[_Portion]):
    def __init__(self, window: InflightWindow) -> None:
        super().__init__(window)
        self.loads: defaultdict[str, ReplicaLoad] = defaultdict(ReplicaLoad)


@dataclass(frozen=True, slots=True)
class _Sent:
    gateway: _Gateway
    portion: _Portion
    arrived_s: float


@dataclass(eq=False)
class _Replica:
    name: str
    waiting: deque[_Sent] = field(default_factory=deque)
    busy: bool = False


@dataclass(slots=True)
class _Job:
    portions: int
    arrived_s: float
    done: Callable[[float], None]


class Simulation:
    """Gateways and replicas of one device."""

    def __init__(
        self, device: Device, gateways: int, replicas: int, window: Callable[[], InflightWindow]
    ) -> None:
        self._device = device
        self._gateways: list[_Gateway] = [_Gateway(window()) for _ in range(gateways)]
        self._replicas = [_Replica(f"r{number}") for number in range(replicas)]
        self._random = random.Random(3)
        self._now_s = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._jobs: dict[RequestId, _Job] = {}
        self._scored_tokens = 0
        self._waits_s: list[float] = []

    def run(self) -> tuple[float, list[float]]:
        """Return the share of the capacity that was used, and the waits of small jobs."""
        for gateway in self._gateways:
            for _ in range(self._device.clients):
                self._client(gateway)
        self._small_job()
        while self._now_s < UNTIL_S:
            self._now_s, _, act = heapq.heappop(self._events)
            act()
        capacity = (UNTIL_S - WARM_UP_S) * self._device.tokens_per_s * len(self._replicas)
        return self._scored_tokens / capacity, self._waits_s

    def _later(self, after_s: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self._now_s + after_s, next(self._order), act))

    def _client(self, gateway: _Gateway) -> None:
        self._send(gateway, "large", self._device.job_tokens, lambda _: self._client(gateway))

    def _small_job(self) -> None:
        if self._now_s > WARM_UP_S:
            gateway = self._random.choice(self._gateways)
            self._send(gateway, "small", SMALL_JOB_TOKENS, self._waits_s.append)
        self._later(SMALL_JOB_EVERY_S, self._small_job)

    def _send(
        self, gateway: _Gateway, tenant: str, tokens: int, done: Callable[[float], None]
    ) -> None:
        name = RequestId(str(next(self._order)))
        count = -(-tokens // gateway.portion_tokens)
        portion = _Portion(name, Tokens(-(-tokens // count)))
        self._jobs[name] = _Job(count, self._now_s, done)
        claim = Claim(TenantId(tenant), 1, ServiceTier.DEFAULT)
        gateway.add(name, claim, [portion] * count)
        self._advance(gateway)

    def _advance(self, gateway: _Gateway) -> None:
        while (portion := gateway.take(Instant(self._now_s))) is not None:
            load, replica = min(
                ((gateway.loads[each.name], each) for each in self._replicas),
                key=lambda pair: pair[0].rank,
            )
            load.add(portion.tokens, next(self._order))
            sent = _Sent(gateway, portion, self._now_s + ROUND_TRIP_S / 2)
            self._later(ROUND_TRIP_S / 2, partial(self._arrive, replica, sent))

    def _arrive(self, replica: _Replica, sent: _Sent) -> None:
        replica.waiting.append(sent)
        if not replica.busy:
            self._start(replica)

    def _start(self, replica: _Replica) -> None:
        limit = tokens_in_time(self._device.tokens_per_s)
        batch: list[_Sent] = []
        tokens = 0
        while replica.waiting and (
            not batch or tokens + replica.waiting[0].portion.tokens <= limit
        ):
            batch.append(replica.waiting.popleft())
            tokens += batch[-1].portion.tokens
        replica.busy = bool(batch)
        if batch:
            started_s = self._now_s
            run_s = self._device.pass_s + tokens / self._device.tokens_per_s
            self._later(run_s, lambda: self._end(replica, batch, started_s))

    def _end(self, replica: _Replica, batch: list[_Sent], started_s: float) -> None:
        run_s = Seconds(self._now_s - started_s)
        for sent in batch:
            scores = PortionScores(
                (),
                replica.name,
                Seconds(started_s - sent.arrived_s),
                run_s,
                self._device.tokens_per_s,
            )
            self._later(ROUND_TRIP_S / 2, partial(self._answered, replica, sent, scores))
        self._start(replica)

    def _answered(self, replica: _Replica, sent: _Sent, scores: PortionScores) -> None:
        gateway, portion = sent.gateway, sent.portion
        gateway.loads[replica.name].remove(portion.tokens)
        gateway.leave(portion.tokens)
        if self._now_s > WARM_UP_S:
            self._scored_tokens += portion.tokens
        answer = Answered(scores, portion.tokens, others_wait=len(gateway) > 0)
        gateway.answered(answer, Instant(self._now_s))
        job = self._jobs[portion.job]
        job.portions -= 1
        if not job.portions:
            del self._jobs[portion.job]
            job.done(self._now_s - job.arrived_s)
        self._advance(gateway)


def simulate(device: Device, gateways: int, replicas: int, window: str) -> Row:
    throughput, waits_s = Simulation(device, gateways, replicas, WINDOWS[window]).run()
    percentiles = statistics.quantiles(waits_s, n=100)
    return Row(
        device.name,
        gateways,
        replicas,
        window,
        round(throughput, 3),
        round(1_000 * percentiles[49], 1),
        round(1_000 * percentiles[98], 1),
    )


def show(rows: list[Row]) -> None:
    table = Table("replica", "gateways", "replicas", *WINDOWS)
    found = {(row.device, row.gateways, row.replicas, row.window): row for row in rows}
    for device, (gateways, replicas) in itertools.product(DEVICES, SHAPES):
        cells = [found[device.name, gateways, replicas, window] for window in WINDOWS]
        texts = [f"{row.throughput:.2f}, {row.wait_ms_p50:,.0f} ms" for row in cells]
        table.add_row(device.name, str(gateways), str(replicas), *texts)
    Console(highlight=False, width=110).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the results to this file")
    chosen = parser.parse_args()
    cases = list(itertools.product(DEVICES, SHAPES, WINDOWS))
    rows = [
        simulate(device, gateways, replicas, window)
        for device, (gateways, replicas), window in track(cases, "Simulating")
    ]
    show(rows)
    if chosen.json is not None:
        found = {"until_s": UNTIL_S, "rows": [asdict(row) for row in rows]}
        chosen.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
