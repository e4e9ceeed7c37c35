"""How fast is the engine by itself? Documents and tokens per second, without any service around.

    python -m benchmarks.engine --model MODEL

The pairs are random token ids, since speed does not depend on which: their lengths are those of
MS MARCO passages with their queries (5 % 37 tokens, median 62, 95 % 114, mean about 67). Batches
are as large as a busy scorer's. The best of several rounds is reported beside the median: other
programs only ever make a round slower.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path

if not __package__:  # Run as a file: make the repository importable, as -m does.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

from serve_app.domain.model import Portion
from serve_app.domain.units import RequestId
from serve_app.engine.loading import EngineLimits, load_engine, load_tokenizer
from serve_app.engine.tokenizer import Template
from serve_app.ports import Engine

MEDIAN_TOKENS, SPREAD = 63.0, 0.35
"""A log-normal near the quantiles above: 5 % 35, median 62, 95 % 112, mean 67."""

QUERY_TOKENS = 8


@dataclass(frozen=True, slots=True)
class Speed:
    """The answer, for people and for files."""

    model: str
    description: str
    device: str
    precision: str
    documents: int
    tokens: int
    documents_per_s_best: float
    documents_per_s_median: float
    tokens_per_s_best: float


def synthetic_lengths(count: int, longest: int) -> list[int]:
    """Tokens of each pair; the same count gives the same lengths."""
    lengths = np.random.default_rng(0).lognormal(np.log(MEDIAN_TOKENS), SPREAD, count)
    return [int(length) for length in np.clip(lengths, 16, longest)]


def synthetic_portions(
    template: Template, lengths: Sequence[int], batch_tokens_max: int
) -> list[Portion]:
    """One portion a batch, as full as it may be; one query for all of a batch's pairs."""
    batches: list[list[int]] = [[]]
    for length in lengths:
        if batches[-1] and sum(batches[-1]) + length > batch_tokens_max:
            batches.append([])
        batches[-1].append(length)
    return [_portion(template, batch) for batch in batches]


def _portion(template: Template, lengths: Sequence[int]) -> Portion:
    rng = np.random.default_rng(sum(lengths))
    # Ordinary words' ids in most vocabularies.
    ids = rng.integers(2_000, 20_000, sum(lengths), dtype=np.int32)
    query_tokens = len(template.prefix) + QUERY_TOKENS + len(template.middle)
    for start in accumulate(lengths[:-1], initial=0):
        ids[start : start + query_tokens] = ids[:query_tokens]
    return Portion(
        request_id=RequestId("synthetic"),
        input_ids=ids.tobytes(),
        lengths=tuple(lengths),
        query_tokens=(query_tokens,) * len(lengths),
    )


def round_s(engine: Engine, portions: Sequence[Portion]) -> float:
    """Seconds to score every portion, one batch after the other."""
    started = time.perf_counter()
    for portion in portions:
        engine.score([portion])
    return time.perf_counter() - started


def measure(model: str, precision: str, limits: EngineLimits, documents: int, rounds: int) -> Speed:
    """Load, warm up, score ``rounds`` times."""
    engine = load_engine(model, None, precision, limits)
    tokenizer = load_tokenizer(model)
    lengths = synthetic_lengths(documents, tokenizer.pair_tokens_max)
    portions = synthetic_portions(tokenizer.template, lengths, limits.batch_tokens_max)
    engine.warm_up()
    times = [round_s(engine, portions) for _ in range(rounds)]
    tokens = sum(lengths)
    return Speed(
        model=model,
        description=engine.description,
        device=engine.device,
        precision=engine.precision,
        documents=documents,
        tokens=tokens,
        documents_per_s_best=documents / min(times),
        documents_per_s_median=documents / statistics.median(times),
        tokens_per_s_best=tokens / min(times),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Documents per second of the engine alone.")
    parser.add_argument("--model", default="embedded", help="hub id, local folder, or `embedded`")
    parser.add_argument("--precision", default="auto", help="auto, float32, bfloat16 or float16")
    parser.add_argument("--documents", type=int, default=400, help="pairs a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 takes all cores")
    parser.add_argument("--batch-tokens-max", type=int, default=8_192)
    parser.add_argument("--forward-tokens-max", type=int, default=4_096)
    parser.add_argument("--json", type=Path, help="write everything to this file")
    chosen = parser.parse_args()
    limits = EngineLimits(
        batch_tokens_max=chosen.batch_tokens_max,
        forward_tokens_max=chosen.forward_tokens_max,
        threads=chosen.threads,
    )
    speed = measure(chosen.model, chosen.precision, limits, chosen.documents, chosen.rounds)
    print(
        f"documents/s {speed.documents_per_s_best:.0f} (median {speed.documents_per_s_median:.0f})"
    )
    print(f"tokens/s {speed.tokens_per_s_best:.0f}")
    print(f"model {speed.model}: {speed.description}")
    print(f"precision {speed.precision} on {speed.device}")
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(asdict(speed), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
