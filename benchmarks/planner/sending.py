"""Send requests on a schedule, without waiting for earlier answers."""

import json
import re
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import cycle

import httpx

from loadtests.traffic import Traffic
from serve_app.planning.arrivals import Arrival
from serve_app.planning.simulation import WARM_UP_S, percentile

THREADS = 256
TIMEOUT_S = 60.0
BODIES = 32

_TIMING = re.compile(r"(\w+);dur=([\d.]+)")


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer. Its latency ``seconds`` counts from the scheduled time of its request."""

    at_s: float
    late_s: float
    """How much later than scheduled the request was sent."""

    seconds: float
    documents: int
    tokens: int
    run_s: float
    """Time of the batches on the scorers, as the service reports it; 0 without an answer."""

    status: int


@dataclass(frozen=True, slots=True)
class Measured:
    """What was observed after the warm-up, in the terms of `simulation.Simulated`."""

    requests: int
    refused_ratio: float
    documents_per_s: float
    p50_s: float
    p99_s: float
    schedule_error_p99_s: float


@lru_cache
def bodies(documents: int, seed: int) -> list[bytes]:
    """Return serialized requests of one size."""
    traffic = Traffic(seed)
    requests = (traffic.request(documents) for _ in range(BODIES))
    return [
        json.dumps({"model": "embedded", "query": each.query, "documents": each.documents}).encode()
        for each in requests
    ]


def ask(client: httpx.Client, body: bytes, documents: int, at_s: float, due: float) -> Answer:
    """Send one request that was ``due`` at this value of `time.perf_counter`."""
    sent = time.perf_counter()
    try:
        answer = client.post(
            "/v1/rerank", content=body, headers={"Content-Type": "application/json"}
        )
    except httpx.TransportError:
        return Answer(at_s, sent - due, time.perf_counter() - due, documents, 0, 0.0, 0)
    seconds = time.perf_counter() - due
    tokens, run_s = 0, 0.0
    if answer.status_code == httpx.codes.OK:
        times = dict(_TIMING.findall(answer.headers["server-timing"]))
        tokens = int(answer.json()["usage"]["total_tokens"])
        run_s = float(times["run"]) / 1_000
    return Answer(at_s, sent - due, seconds, documents, tokens, run_s, answer.status_code)


def send(address: str, key: str, arrivals: Iterable[Arrival], seed: int) -> list[Answer]:
    """Send all requests at their times, and wait for all answers."""
    due = list(arrivals)
    prepared = {size: cycle(bodies(size, seed)) for size in {len(each.lengths) for each in due}}
    limits = httpx.Limits(max_connections=THREADS, max_keepalive_connections=THREADS)
    answers: list[Answer] = []
    lock = threading.Lock()
    with (
        httpx.Client(
            base_url=address,
            headers={"Authorization": f"Bearer {key}"},
            timeout=TIMEOUT_S,
            limits=limits,
        ) as client,
        ThreadPoolExecutor(THREADS) as threads,
    ):

        def one(arrival: Arrival, began: float, body: bytes) -> None:
            found = ask(client, body, len(arrival.lengths), arrival.at_s, began + arrival.at_s)
            with lock:
                answers.append(found)

        began = time.perf_counter()
        for arrival in due:
            time.sleep(max(0.0, began + arrival.at_s - time.perf_counter()))
            threads.submit(one, arrival, began, next(prepared[len(arrival.lengths)]))
    return answers


def measured(answers: Sequence[Answer], seconds: float) -> Measured:
    """Return the figures of a run of this length."""
    counted = [each for each in answers if each.at_s >= WARM_UP_S]
    scored = [each for each in counted if each.status == httpx.codes.OK]
    took = sorted(each.seconds for each in scored)
    ended = [
        each
        for each in answers
        if each.status == httpx.codes.OK and WARM_UP_S <= each.at_s + each.seconds <= seconds
    ]
    return Measured(
        requests=len(counted),
        refused_ratio=1 - len(scored) / len(counted),
        documents_per_s=sum(each.documents for each in ended) / (seconds - WARM_UP_S),
        p50_s=percentile(took, 0.5),
        p99_s=percentile(took, 0.99),
        schedule_error_p99_s=percentile(sorted(each.late_s for each in counted), 0.99),
    )
