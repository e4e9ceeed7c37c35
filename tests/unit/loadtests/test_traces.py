"""Traces from the logs of the gateways."""

import io
import json
from pathlib import Path
from typing import Any

from loadtests.arrivals import replayed
from loadtests.traces import write_trace


def line(ended_s: float, **fields: Any) -> str:
    time = {"timestamp_ns": round(ended_s * 1e9), "duration_s": 0.5}
    return json.dumps({"event": "rerank_request", "status": 200} | time | fields)


def test_a_trace_has_the_arrivals_of_the_logs_in_order(tmp_path: Path) -> None:
    lines = [
        line(102, documents=50, tokens=3_000),
        line(101, documents=5, tokens=320),
        line(103, documents=7),
        line(101.5),
        line(101.5, documents=9)[:-5],
        '{"message": "not a \\"rerank_request\\""}',
        "Ray has started.",
    ]
    file = tmp_path / "trace.csv"

    with file.open("w") as open_file:
        count = write_trace(lines, open_file)
    schedule = replayed(file, duration_s=60)

    assert count == 3
    assert schedule.at_s.tolist() == [0, 1, 2]
    assert schedule.documents.tolist() == [5, 50, 7]
    assert schedule.pair_tokens.tolist() == [64, 59, 0]


def test_logs_without_requests_give_an_empty_trace() -> None:
    file = io.StringIO()

    assert write_trace(["Ray has started."], file) == 0
    assert file.getvalue() == "at_s,documents,pair_tokens\n"
