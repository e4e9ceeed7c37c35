"""Traces of past traffic, from the logs of the service's gateways."""

import csv
import json
from collections.abc import Iterable, Iterator
from typing import TextIO

COLUMNS = ("at_s", "documents", "pair_tokens")
REQUEST = "rerank_request"

Arrival = tuple[float, int, float | None]
"""Seconds since 1970, documents, and tokens per pair of an answered request."""


def write_trace(lines: Iterable[str], file: TextIO) -> int:
    """Write the requests in ``lines`` in order of time, and return their number.

    Requests that were refused before their documents were counted are not in the trace.
    """
    arrivals = sorted(_arrivals(lines), key=lambda arrival: arrival[0])
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for at_s, documents, pair_tokens in arrivals:
        length = "" if pair_tokens is None else f"{pair_tokens:.1f}"
        writer.writerow((f"{at_s - arrivals[0][0]:.6f}", documents, length))
    return len(arrivals)


def _arrivals(lines: Iterable[str]) -> Iterator[Arrival]:
    for line in lines:
        if f'"{REQUEST}"' not in line:
            continue
        try:
            fields = json.loads(line)
            if fields["event"] != REQUEST or not fields.get("documents"):
                continue
            at_s = fields["timestamp_ns"] / 1e9 - fields["duration_s"]
            documents = int(fields["documents"])
            tokens = fields.get("tokens")
            yield at_s, documents, None if tokens is None else tokens / documents
        except (KeyError, TypeError, ValueError):
            continue  # A broken line, such as the last one of a killed process.
