"""Measure the speeds of the parts of a running service, with requests that are not the profile's.

One client sends small and larger requests, one after the other. The service reports the time of
each batch, from which the speed of a scorer follows. The CPU time of the gateway's process is the
work of the gateway. That of a slow gateway is measured at half of its highest throughput, because
requests that it has at the same time share work. The throughput of one and of many callers of the
ledger shows the speed of the database. The part of the latency that nothing else explains is the
transit.
"""

import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx
import psutil

from benchmarks.ledger import throughput
from benchmarks.planner.cases import SLOW_GATEWAY_SHARE, Case
from benchmarks.planner.sending import Answer, ask, bodies, send
from benchmarks.planner.services import Running
from serve_app.batching.batch_size import IDLE_WAIT_S
from serve_app.domain.units import Seconds
from serve_app.planning.arrivals import arrivals
from serve_app.planning.profiles import (
    PAIR_TOKENS,
    Basis,
    Database,
    Gateway,
    Scorer,
    Service,
    Traffic,
)
from serve_app.planning.readers import write_times
from serve_app.planning.simulation import GATEWAYS
from testkit.load import cpu_s

RUN_S = 0.08
"""Time that a scorer takes for a larger request. It is so short that the request is one portion."""

REQUESTS = 24
CLIENTS, SATURATED_S = 16, 3.0
SATURATING_DOCUMENTS = 20
"""Documents per request of the many clients, so few that the scorers are not the limit."""

HALF_LOAD_S = 12.0


@dataclass(frozen=True, slots=True)
class Calibration:
    """The measured speeds."""

    tokens_per_s: float
    batch_s: float
    request_s: float
    document_s: float
    transit_s: float
    transaction_s: float
    write_s: float


def calibrate(case: Case, running: Running, seed: int) -> Calibration:
    """Measure all parts of an idle service."""
    larger = max(2, round(RUN_S * case.gpu_tokens_per_s / PAIR_TOKENS))
    (small, small_cpu_s), (large, large_cpu_s) = (
        _one_client(running, size, seed) for size in (1, larger)
    )
    batch_s, per_token_s = _line([(each.tokens, each.run_s) for each in (*small, *large)])
    if case.throttled == GATEWAYS:
        sizes = (1, SATURATING_DOCUMENTS)
        request_s, document_s = _line(
            [(size, _at_half_load(running, size, seed)) for size in sizes]
        )
    else:
        request_s, document_s = _line([(1, small_cpu_s), (larger, large_cpu_s)])
    transaction_s, write_s = _database(running)
    gateway = Gateway()
    known_s = (
        request_s
        + document_s
        + 2 * (transaction_s + write_s)
        + gateway.call_s
        + IDLE_WAIT_S
        + statistics.median(each.run_s for each in small)
    )
    latency_s = statistics.median(each.seconds for each in small)
    return Calibration(
        tokens_per_s=1 / per_token_s,
        batch_s=max(0.0, batch_s),
        request_s=request_s,
        document_s=max(0.0, document_s),
        transit_s=max(0.0, latency_s - known_s),
        transaction_s=transaction_s,
        write_s=write_s,
    )


def median_of(found: Sequence[Calibration]) -> Calibration:
    """Return the median of each speed."""
    names = Calibration.__slots__
    return Calibration(
        **{name: statistics.median(getattr(each, name) for each in found) for name in names}
    )


def profile(found: Calibration, start_s: float) -> Service:
    """Return the profiles for the planner."""
    source = "a calibration"
    speeds = ((PAIR_TOKENS, found.tokens_per_s),)
    return Service(
        Scorer(
            "simulated GPU",
            Basis.MEASURED,
            source,
            speeds,
            Seconds(found.batch_s),
            Seconds(start_s),
        ),
        Gateway(
            Seconds(found.request_s),
            Seconds(found.document_s),
            Seconds(found.transit_s),
            source=source,
        ),
        Database("the service's", Seconds(found.transaction_s), Seconds(found.write_s), source),
    )


def _one_client(running: Running, documents: int, seed: int) -> tuple[list[Answer], float]:
    """Return the answers, and the gateway's CPU time per request."""
    gateways = _gateways(running)
    with running.client() as client:
        for body in bodies(documents, seed)[:2]:  # The first requests open a connection.
            ask(client, body, documents, 0.0, time.perf_counter())
        before = cpu_s(gateways)
        answers = [
            ask(client, body, documents, 0.0, time.perf_counter())
            for body in bodies(documents, seed)[:REQUESTS]
        ]
        used_s = cpu_s(gateways) - before
    assert all(each.status == httpx.codes.OK for each in answers)
    return answers, used_s / len(answers)


def _at_half_load(running: Running, documents: int, seed: int) -> float:
    """Return the time that a slow gateway needs per request, at half of its highest throughput."""
    rate = _many_clients(running, documents, seed) / 2
    requests = arrivals(Traffic(rate, {documents: 1.0}), HALF_LOAD_S, seed)
    gateways = _gateways(running)
    before = cpu_s(gateways)
    answers = send(running.address, running.key, requests, seed)
    return (cpu_s(gateways) - before) / SLOW_GATEWAY_SHARE / len(answers)


def _gateways(running: Running) -> list[psutil.Process]:
    """Return the processes of the gateways, and those of their tokenizers."""
    gateways = running.replicas("rerank")
    return [process for each in gateways for process in (each, *each.children())]


def _database(running: Running) -> tuple[float, float]:
    """Return the time of a transaction, and that of a write."""
    alone_per_s, together_per_s = (
        len(times) / took_s
        for times, took_s in (
            throughput.group_commit(running.database_url, running.callers, callers, SATURATED_S)
            for callers in (1, CLIENTS)
        )
    )
    return write_times(alone_per_s, together_per_s, CLIENTS)


def _many_clients(running: Running, documents: int, seed: int) -> float:
    """Return the requests/s of clients, each of which sends its next request after an answer."""
    until = time.perf_counter() + SATURATED_S
    prepared = bodies(documents, seed)

    def one(number: int) -> int:
        answered = 0
        with running.client() as client:
            while time.perf_counter() < until:
                ask(client, prepared[number], documents, 0.0, time.perf_counter())
                answered += 1
        return answered

    began = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as threads:
        answered = sum(threads.map(one, range(CLIENTS)))
    return answered / (time.perf_counter() - began)


def _line(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return intercept and slope of the line with the least squared errors."""
    slope, intercept = statistics.linear_regression([x for x, _ in points], [y for _, y in points])
    return intercept, slope
