"""How much CPU time does a trace take in a gateway?

    python -m benchmarks.service.trace_cost --json benchmarks/results/trace-cost.json

The ten spans are those of a request with five documents, the smallest request that has all of them.
The collector is another process. The figures are the lowest of all turns: whatever else the machine
does only adds to them.
"""

import argparse
import json
import os
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.machine import Machine, machine
from serve_app.domain.clock import SystemClock
from serve_app.telemetry.otlp import OtlpCollector
from serve_app.telemetry.traces import (
    SpanKind,
    Trace,
    Traces,
    Value,
    span,
)
from testkit.otlp import receiving

TRACES, TURNS = 200, 50
"""Traces of a turn, whose spans fit into the queue, and turns."""

STEPS = ("authenticate", "receive", "admit", "reserve", "tokenize")
OF_PORTION: dict[str, Value] = {"rerank.pairs": 5, "rerank.tokens": 335, "rerank.replica": "a1b2c3"}
OF_REQUEST: dict[str, Value] = {
    "openinference.span.kind": "RERANKER",
    "reranker.model_name": "embedded",
    "reranker.top_k": 5,
    "gen_ai.operation.name": "rerank",
    "gen_ai.request.model": "embedded",
    "gen_ai.usage.input_tokens": 335,
    "http.response.status_code": 200,
    "rerank.request_id": "0123456789abcdef0123456789abcdef",
    "rerank.tenant": "dev",
    "rerank.key_id": "0123456789ab",
    "rerank.documents": 5,
    "rerank.charge_micro_dollars": 40,
}


@dataclass(frozen=True, slots=True)
class Result:
    """The result of the benchmark."""

    question: str
    date: str
    machine: Machine
    request_us: float
    """CPU time of the threads that process the request."""

    total_us: float
    """The same and that of the thread that encodes the spans and sends them."""


def record(traces: Traces, clock: SystemClock) -> Trace:
    """Trace a request that takes no time."""
    trace = traces.begin({}, clock.instant())
    assert trace is not None
    for step in STEPS:
        with span(step):
            pass
    with span("score"):
        with span("queue"):
            pass
        with span("portion", SpanKind.CLIENT) as portion:
            assert portion is not None
            portion.attributes |= OF_PORTION
    with span("commit"):
        pass
    return trace


def turn(clock: SystemClock) -> tuple[float, float]:
    """Return both CPU times of a trace in seconds."""
    collector = OtlpCollector("rerank-gateway", "benchmark")
    traces = Traces(collector, clock)
    before_s, before_of_thread_s = time.process_time(), time.thread_time()
    for _ in range(TRACES):
        traces.end(record(traces, clock), OF_REQUEST, failed=False)
    of_thread_s = time.thread_time() - before_of_thread_s
    collector.close()
    return of_thread_s / TRACES, (time.process_time() - before_s) / TRACES


def collect(connection: Connection) -> None:
    """Run a collector until the connection is closed."""
    with receiving(decodes=False) as receiver:
        connection.send(receiver.endpoint)
        connection.poll(None)


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU time of a trace in a gateway.")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    chosen = parser.parse_args()
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    collector = context.Process(target=collect, args=(theirs,), daemon=True)
    collector.start()
    os.environ |= {  # noqa: TID251 - for OpenTelemetry
        "OTEL_EXPORTER_OTLP_ENDPOINT": ours.recv(),
        "OTEL_TRACES_SAMPLER": "always_on",
    }
    clock = SystemClock()
    turns = [turn(clock) for _ in range(TURNS)]
    ours.send(None)
    result = Result(
        "How much CPU time does a trace take in a gateway?",
        datetime.now(UTC).date().isoformat(),
        machine(),
        *(round(1e6 * min(column), 1) for column in zip(*turns, strict=True)),
    )
    text = json.dumps(asdict(result), indent=2) + "\n"
    print(text)
    if chosen.json is not None:
        chosen.json.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
