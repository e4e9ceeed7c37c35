"""Documents per second of the engine by length, batch size and batches in flight.

Tokenizing is apart, except for one figure: two threads tokenize requests and score them. The words
of the texts are few, so the tokenizer finds nearly all of them in its cache.

The share of the matmul peak counts the operations that the documents need, without padding.
"""

import time
from typing import Any

import torch

from benchmarks.gpu.subject import PORTION_TOKENS, TYPICAL, Batch, Subject
from benchmarks.gpu.timing import milliseconds, per_second
from loadtests.traffic import Request
from serve_app.ports import Engine

SQUARE = 8_192
SMALL_SQUARE = 256  # for a CPU


def run(subject: Subject, found: dict[str, Any]) -> None:
    peaks = matmul_peaks(subject)
    found["matmul_tflop_per_s"] = peaks
    print(f"  float16 products, TFLOP/s: {peaks}")
    peak = 1e12 * max(peaks.values())
    engines = {tokens: subject.engine("float16", tokens) for tokens in subject.sizes.batch_tokens}
    found["documents_per_s"] = {}
    for name in subject.texts:
        rows = found["documents_per_s"][name] = []
        flop = subject.flop(name)
        for tokens, engine in engines.items():
            row = _row(subject, engine, name, tokens)
            row["share_of_peak"] = round(_best([row]) * flop / peak, 4)
            rows.append(row)
            print(f"  {name}, {row}")
    found["best_typical_documents_per_s"] = _best(found["documents_per_s"][TYPICAL])
    found["tokenized_documents_per_s_of_one_thread"] = _tokenizing(subject)
    print(f"  tokenizing, one thread: {found['tokenized_documents_per_s_of_one_thread']}")
    found["typical_documents_per_s_with_tokenizing"] = rate = _with_tokenizing(subject)
    print(f"  {TYPICAL}, with tokenizing: {rate}")


def _row(subject: Subject, engine: Engine, name: str, batch_tokens: int) -> dict[str, Any]:
    batches = subject.batches(name, batch_tokens)

    def score(batch: Batch) -> int:
        return scored(engine, batch)

    one, two = (
        round(per_second(score, batches, in_flight, subject.sizes.seconds)) for in_flight in (1, 2)
    )
    return {"batch_tokens": batch_tokens, "one_in_flight": one, "two_in_flight": two}


def _best(rows: list[dict[str, Any]]) -> int:
    rates: list[int] = [row[way] for row in rows for way in ("one_in_flight", "two_in_flight")]
    return max(rates)


def scored(engine: Engine, batch: Batch) -> int:
    """Score ``batch`` and return its number of documents."""
    return sum(map(len, engine.score(batch)))


def matmul_peaks(subject: Subject) -> dict[str, float]:
    """Return the TFLOP/s of a large square product and of the feed-forward layer's."""
    hidden, inner = subject.config.hidden_size, subject.config.intermediate_size
    square = SQUARE if subject.device.type == "cuda" else SMALL_SQUARE
    shapes = {
        "square": (square, square, square),
        "feed_forward": (subject.sizes.production_tokens, hidden, inner),
    }
    return {name: _tflop_per_s(subject, *shape) for name, shape in shapes.items()}


def _tflop_per_s(subject: Subject, rows: int, shared: int, columns: int) -> float:
    left = torch.rand(rows, shared, device=subject.device).half()
    right = torch.rand(shared, columns, device=subject.device).half()
    took_ms = milliseconds(lambda: left @ right, subject.device, subject.sizes.seconds)
    return round(2 * rows * shared * columns / took_ms / 1e9, 3)


def _tokenizing(subject: Subject) -> int:
    """Return the documents/s of the gateway's tokenizer, most of whose words are cached."""
    started = time.perf_counter()
    documents = len(subject.lengths(TYPICAL))
    return round(documents / (time.perf_counter() - started))


def _with_tokenizing(subject: Subject) -> int:
    tokens = subject.sizes.production_tokens
    engine = subject.engine("float16", tokens)
    requests = subject.texts[TYPICAL]
    per_batch = max(1, tokens * len(requests) // subject.sizes.tokens)
    groups = [requests[start : start + per_batch] for start in range(0, len(requests), per_batch)]

    def score(group: list[Request]) -> int:
        return scored(engine, subject.portions(group, min(PORTION_TOKENS, tokens)))

    return round(per_second(score, groups, 2, 4 * subject.sizes.seconds))
