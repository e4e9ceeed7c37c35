"""Do large requests delay requests of one document? Needs no GPU.

    python -m benchmarks.service.big_requests --json benchmarks/results/big-requests.json

The whole service runs with SQLite and a simulated GPU (`testkit.simulated_gpu`), so that only the
work of the CPUs remains. One client sends one document at a time: alone, together with a client of
another tenant that sends 10,000 documents at a time without a pause, and together with one that
sends bodies of 10 MB twice a second; several turns. The large client has a process of its own,
because reading its answers would delay the other client. Meanwhile, `/health` is requested all the
time: it needs only the event loop of the gateway. All of it runs on the same cores, so small
requests also wait for cores that large requests use.

The costs of the bodies are measured without the service, as CPU time in one thread.
"""

import argparse
import json
import multiprocessing
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import httpx
from rich.progress import track

from benchmarks.machine import Machine, machine
from loadtests.traffic import Traffic
from serve_app.domain.model import Outcome, RankedDocument
from serve_app.domain.units import Credits, Instant, ModelId, Moment, RequestId, Seconds, Tokens
from serve_app.protocols.limits import Limits
from serve_app.protocols.rerank import parse, render
from serve_app.protocols.wire_format import Envelope, read_fields
from testkit.load import Group, Target, closed_loop
from testkit.load_figures import figures, percentile
from testkit.service import Service, deployment, model, serve_config
from testkit.simulated_service import simulated_service

ONE, MANY = 1, 10_000
LONG, LONG_REPEATS = 1_000, 38
"""Documents of a body of 10 MB, and how often they repeat a text of 260 characters on average."""

LONG_EVERY_S = 0.5
BODY_BYTES_MAX = 33_554_432
GPU_TOKENS_PER_S = 10_000_000
"""Fast enough that a request of one document hardly waits for a batch of the large ones."""

TOKENIZER_THREADS = 1
"""With two, the tokenizer would use both cores of the machine."""

PAUSE_S = 0.02
"""Pause between two requests of the client with one document, and of the one of `/health`."""

MARGIN_S = 5.0
"""The large requests begin this long before the small ones, and end this long after them."""

WORDS = 500
REPEATS = 7


@dataclass(frozen=True, slots=True)
class Delay:
    """Latencies in one part of a turn."""

    one_p50_ms: float | None
    one_p99_ms: float | None
    health_p50_ms: float | None
    health_p99_ms: float | None
    health_max_ms: float
    large_p50_ms: float | None


@dataclass(frozen=True, slots=True)
class Turn:
    """The one-document requests alone, and next to large ones of both kinds."""

    alone: Delay
    with_many: Delay
    with_long: Delay


@dataclass(frozen=True, slots=True)
class Ratios:
    """Medians over the turns of the latencies with large requests / without."""

    p50: float
    p99: float
    health_p99: float


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU time for a body and its answer with all documents, the least of several tries."""

    documents: int
    text: str
    body_mb: float
    parse_ms: float
    render_ms: float


@dataclass(frozen=True, slots=True)
class Result:
    """The result of the benchmark."""

    question: str
    date: str
    machine: Machine
    turns: list[Turn]
    many: Ratios
    long: Ratios
    costs: list[Cost]


@contextmanager
def big_service() -> Iterator[Service]:
    """Start a service with one gateway, one scorer and limits for large requests."""
    config = serve_config(
        [model("embedded", "embedded", deployment(1, max_ongoing_requests=2_048))],
        deployment(1),
        documents_per_request_max=MANY,
        body_bytes_max=BODY_BYTES_MAX,
        tokenizer_threads=TOKENIZER_THREADS,
    )
    with simulated_service(config, GPU_TOKENS_PER_S) as service:
        yield service


def health_times(service: Service, stop: threading.Event, times: list[float]) -> None:
    with httpx.Client(base_url=service.address, timeout=60) as http:
        while not stop.is_set():
            began = time.perf_counter()
            http.get("/health").raise_for_status()
            times.append(1_000 * (time.perf_counter() - began))
            stop.wait(PAUSE_S)


def delay(service: Service, one: Group, seconds: float) -> Delay:
    stop, times = threading.Event(), list[float]()
    poller = threading.Thread(target=health_times, args=(service, stop, times))
    poller.start()
    try:
        observed = closed_loop([one], seconds, _no_cpu_s)
    finally:
        stop.set()
        poller.join()
    (small,) = figures([one], observed)
    return Delay(
        small.p50_ms,
        small.p99_ms,
        percentile(times, 0.5),
        percentile(times, 0.99),
        round(max(times), 1),
        large_p50_ms=None,
    )


def delay_with(service: Service, one: Group, large: Group, seconds: float) -> Delay:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        observed = process.submit(closed_loop, [large], seconds + 2 * MARGIN_S, _no_cpu_s)
        time.sleep(MARGIN_S)
        measured = delay(service, one, seconds)
        (figure,) = figures([large], observed.result())
    return replace(measured, large_p50_ms=figure.p50_ms)


def _no_cpu_s() -> float:
    return 0.0


def turns(service: Service, count: int, seconds: float) -> list[Turn]:
    url = f"{service.address}/v1/rerank"
    other = Target(url, "embedded", service.new_key("big", Credits(10**9)))
    one = Group("one", Target(url, "embedded", service.key), 1, ONE, think_s=PAUSE_S)
    many = Group("many", other, 1, MANY)
    long = Group("long", other, 1, LONG, every_s=LONG_EVERY_S, repeats=LONG_REPEATS)
    return [
        Turn(
            delay(service, one, seconds),
            delay_with(service, one, many, seconds),
            delay_with(service, one, long, seconds),
        )
        for _ in track(range(count), "turns")
    ]


def ratios(pairs: list[tuple[Delay, Delay]]) -> Ratios:
    """``pairs`` has the latencies without and with large requests."""

    def ratio(of: Callable[[Delay], float | None]) -> float:
        each = ((of(loaded) or 0) / (of(alone) or 1) for alone, loaded in pairs)
        return round(statistics.median(each), 2)

    return Ratios(
        ratio(lambda part: part.one_p50_ms),
        ratio(lambda part: part.one_p99_ms),
        ratio(lambda part: part.health_p99_ms),
    )


def costs() -> Iterator[Cost]:
    for documents in (1_000, 10_000):
        for text, word in (("ASCII", "passage "), ("not ASCII", "größe ")):
            yield cost(documents, text, (word * WORDS)[: BODY_BYTES_MAX // (2 * documents)])


def cost(documents: int, text: str, document: str) -> Cost:
    limits = Limits(BODY_BYTES_MAX, documents, 32_768, Seconds(30), Seconds(60), Seconds(10))
    envelope = Envelope(RequestId("rr_1"), Seconds(30), Instant(30))
    fields = {
        "query": Traffic(0).request(1).query,
        "documents": [document] * documents,
        "return_documents": True,
    }
    body = json.dumps(fields, ensure_ascii=False).encode()
    results = tuple(RankedDocument(index, 0.0, truncated=False) for index in range(documents))
    outcome = Outcome(
        *(RequestId("rr_1"), Moment(0), ModelId("embedded"), results),
        *(documents, Tokens(1), Credits(1)),
        queue_wait_s=Seconds(0),
        run_s=Seconds(0),
    )
    parsed = parse(read_fields(body, limits.json), limits, envelope, _model)
    return Cost(
        documents,
        text,
        round(len(body) / 1e6, 1),
        least_ms(lambda: parse(read_fields(body, limits.json), limits, envelope, _model)),
        least_ms(lambda: render(outcome, parsed)),
    )


def _model(_name: str | None) -> ModelId:
    return ModelId("embedded")


def least_ms(work: Callable[[], object]) -> float:
    """Return the least CPU time of several tries, in milliseconds."""
    times = []
    for _ in range(REPEATS):
        began = time.thread_time()
        work()
        times.append(time.thread_time() - began)
    return round(1_000 * min(times), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description="One document next to large requests.")
    parser.add_argument("--seconds", type=float, default=20, help="duration of each part of a turn")
    parser.add_argument("--turns", type=int, default=3, help="number of turns")
    parser.add_argument("--json", type=Path, help="write everything to this file")
    chosen = parser.parse_args()
    all_costs = list(costs())
    with big_service() as service:
        taken = turns(service, chosen.turns, chosen.seconds)
    result = Result(
        question="Do large requests delay requests of one document?",
        date=datetime.now(UTC).date().isoformat(),
        machine=machine(),
        turns=taken,
        many=ratios([(each.alone, each.with_many) for each in taken]),
        long=ratios([(each.alone, each.with_long) for each in taken]),
        costs=all_costs,
    )
    text = json.dumps(asdict(result), indent=2) + "\n"
    if chosen.json is not None:
        chosen.json.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
