"""Does a pair's logit depend on the pairs that are scored with it?

    python -m benchmarks.engine.batch_invariance --batchings 100000 --pairs 2000 --json FILE

Every pair is scored alone first. Then random batches of these pairs, of 1 to ``--batch-max`` pairs
in random order and in up to three portions, are scored, and each logit is compared with that of the
pair alone, bit by bit. The model is a BERT with random weights and two layers, which run all
kernels that more layers would run, unless ``--model`` names another one.

A run is added to those that FILE has already, so that the work can be spread over several runs,
each with another ``--seed``. It ends with status 1 if a logit differs.
"""

import argparse
import json
import math
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from transformers import AutoTokenizer

from benchmarks.engine import minilm
from benchmarks.engine.texts import job, of_length
from benchmarks.machine import Machine, machine
from loadtests.traffic import Traffic
from serve_app.domain.model import EMBEDDED
from serve_app.domain.tokenized import Pair
from serve_app.engine.limits import EngineLimits
from serve_app.engine.loading import load_engine, load_tokenizer
from serve_app.ports import Engine, Tokenizer
from serve_app.settings.models import Checkpoint
from serve_app.settings.scorer import ScorerSettings
from testkit.reference import portion
from testkit.tokenized import pairs_in

DOCUMENTS = 20
"""Documents of a request. Its last one has a random length, so that all lengths occur."""

PORTIONS_MAX = 3
HEAD_SIZE = 32
LAYERS = 2


@dataclass(frozen=True, slots=True)
class Run:
    """The result of one run."""

    machine: Machine
    model: str
    engine: str
    precision: str
    threads: int
    seed: int
    pairs: int
    tokens_median: float
    tokens_max: int
    batchings: int
    scored: int
    different: int
    """Logits that differ from those of the pairs alone."""

    difference_max: float
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description="Is a logit the same in every batch?")
    parser.add_argument("--batchings", type=int, default=1_000)
    parser.add_argument("--pairs", type=int, default=2_000)
    parser.add_argument("--batch-max", type=int, default=32, help="most pairs of a batch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds-max", type=float, default=math.inf, help="end early")
    parser.add_argument("--model", help="hub id, folder or `embedded`")
    parser.add_argument("--hidden-size", type=int, default=384, help="without --model")
    parser.add_argument("--precision", default="float32", help="float32, bfloat16 or float16")
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    parser.add_argument("--json", type=Path, help="add the result to this file")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if chosen.model is None:
            _write(Path(name), chosen.hidden_size)
        source = chosen.model or name
        defaults = ScorerSettings(checkpoint=Checkpoint(source=EMBEDDED))
        limits = EngineLimits(defaults.batch_tokens_max, threads=chosen.threads)
        engine = load_engine(source, None, chosen.precision, limits)
        model = chosen.model or f"BERT, {LAYERS} layers, hidden size {chosen.hidden_size}"
        run = measure(engine, load_tokenizer(source), model, chosen)
    runs = [asdict(run)]
    print(json.dumps(runs[0], indent=2))
    if chosen.json is not None:
        if chosen.json.exists():
            runs = [*json.loads(chosen.json.read_text(encoding="utf-8")), *runs]
        chosen.json.write_text(json.dumps(runs, indent=2) + "\n", encoding="utf-8")
    sys.exit(1 if run.different else 0)


def measure(engine: Engine, tokenizer: Tokenizer, model: str, chosen: argparse.Namespace) -> Run:
    pairs = varied_lengths(tokenizer, chosen.pairs)
    alone = [engine.score([portion([pair])])[0][0] for pair in pairs]
    rng = random.Random(chosen.seed)
    batchings = scored = different = 0
    difference_max = 0.0
    started = time.monotonic()
    while batchings < chosen.batchings and time.monotonic() - started < chosen.seconds_max:
        members = rng.sample(range(len(pairs)), _batch_size(rng, chosen.batch_max))
        logits = _scored(engine, [pairs[member] for member in members], rng)
        differences = [
            abs(logit - alone[member])
            for member, logit in zip(members, logits, strict=True)
            if logit != alone[member]  # Also if either is NaN.
        ]
        batchings += 1
        scored += len(members)
        different += len(differences)
        difference_max = max(difference_max, *differences, 0.0)
    return Run(
        machine(),
        model,
        engine.description,
        engine.precision,
        chosen.threads,
        chosen.seed,
        len(pairs),
        statistics.median(pair.tokens for pair in pairs),
        max(pair.tokens for pair in pairs),
        batchings,
        scored,
        different,
        difference_max,
        round(time.monotonic() - started),
    )


def varied_lengths(tokenizer: Tokenizer, count: int) -> list[Pair]:
    """Return pairs with the lengths of MS MARCO, and one in twenty of any length up to 512."""
    traffic, rng = Traffic(0), random.Random(0)
    pairs: list[Pair] = []
    while len(pairs) < count:
        pairs += pairs_in(tokenizer.tokenize(job(traffic.request(DOCUMENTS - 1))))
        pairs += pairs_in(tokenizer.tokenize(job(of_length(rng.randint(8, 512), 1))))
    return pairs[:count]


def _batch_size(rng: random.Random, most: int) -> int:
    """Return a random size; as many are below √most as above."""
    return int(2 ** rng.uniform(0, math.log2(most + 1)))


def _scored(engine: Engine, pairs: Sequence[Pair], rng: random.Random) -> list[float]:
    cuts = sorted(rng.randint(0, len(pairs)) for _ in range(PORTIONS_MAX - 1))
    bounds = zip([0, *cuts], [*cuts, len(pairs)], strict=True)
    portions = [portion(pairs[start:end]) for start, end in bounds if start < end]
    return [logit for logits in engine.score(portions) for logit in logits]


def _write(folder: Path, hidden_size: int) -> None:
    minilm.write(folder)
    shape = {
        "hidden_size": hidden_size,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": hidden_size // HEAD_SIZE,
        "intermediate_size": 4 * hidden_size,
    }
    tokenizer = AutoTokenizer.from_pretrained(folder)  # nosec B615 # a local folder
    minilm.write_with(tokenizer, folder, shape)


if __name__ == "__main__":
    main()
