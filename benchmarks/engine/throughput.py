"""How fast is the engine alone, without the service, compared with its alternatives?

    python -m benchmarks.engine.throughput --quick --json FILE
    python -m benchmarks.engine.throughput --json FILE --plot PICTURE

A model of MiniLM's shape (12 layers, hidden size 384, random weights) tokenizes and scores texts
with the lengths of MS MARCO passages (`loadtests.traffic`). In each turn, all contestants score the
same new texts. A ratio is the median of the turns' ratios, because other programs on the machine
slow all contestants down. The logits are compared too.

Without ``--quick``, it also measures fixed lengths, and this engine by batch size, pass size and
threads. With ``--model``, it times only this engine with any model, and tokenizing separately.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.engine import contestants, minilm
from benchmarks.engine.texts import job, of_length, prepared, scored
from benchmarks.machine import machine
from loadtests.traffic import Request, Traffic
from serve_app.domain.model import EMBEDDED
from serve_app.engine.cpu import suitable_passes
from serve_app.engine.device import PRECISIONS, use_cpu_threads
from serve_app.engine.limits import EngineLimits
from serve_app.engine.loading import load_engine, load_tokenizer
from serve_app.ports import Engine, Tokenizer
from serve_app.settings.models import Checkpoint
from serve_app.settings.scorer import ScorerSettings

DOCUMENTS = 50
LENGTHS = (16, 32, 64, 128, 256, 512)
PASSES = (256, 512, 1_024, 2_048, 4_096)
PORTIONS = (1_024, 2_048, 4_096, 8_192)
SETTINGS = ScorerSettings(checkpoint=Checkpoint(source=EMBEDDED))
OURS = "this engine"


@dataclass(frozen=True, slots=True)
class Speed:
    """The speed of one contestant in each turn."""

    name: str
    documents_per_s: list[float]
    tokens_per_s: list[float]
    difference_max: float
    """Largest difference from this engine's logits."""

    @property
    def median(self) -> float:
        return statistics.median(self.documents_per_s)


@dataclass(frozen=True, slots=True)
class Comparison:
    """The speeds of all contestants on one kind of texts."""

    tokens_mean: float
    speeds: list[Speed]

    def ratio(self, name: str) -> float:
        """Return this engine's speed divided by that of ``name``: the median of the turns."""
        speeds = {speed.name: speed.documents_per_s for speed in self.speeds}
        pairs = zip(speeds[OURS], speeds[name], strict=True)
        return round(statistics.median(ours / theirs for ours, theirs in pairs), 3)


@dataclass(frozen=True, slots=True)
class Setting:
    """The speed of this engine with one portion size, pass size and number of threads."""

    portion_tokens: int
    forward_tokens: int
    threads: int
    documents_per_s: float


def main() -> None:
    parser = argparse.ArgumentParser(description="Documents per second of the engine alone.")
    parser.add_argument("--quick", action="store_true", help="the comparison only")
    parser.add_argument("--model", help="hub id, folder or `embedded`: time this engine alone")
    parser.add_argument("--precision", default="auto", help="auto, float32, bfloat16 or float16")
    parser.add_argument(
        "--requests", type=int, default=3, help=f"requests of {DOCUMENTS} documents per turn"
    )
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--portion-tokens", type=int, default=SETTINGS.portion_tokens_max)
    parser.add_argument("--batch-tokens", type=int, default=SETTINGS.batch_tokens_max)
    parser.add_argument("--json", type=Path, help="write everything to this file")
    parser.add_argument("--plot", type=Path, help="plot speed by length to this file")
    chosen = parser.parse_args()
    result = _one_model(chosen) if chosen.model else _compare(chosen)
    for name, value in result.items():
        if isinstance(value, int | float | str):  # The rest is in the file.
            print(f"{name}: {value}")
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _one_model(chosen: argparse.Namespace) -> dict[str, Any]:
    limits = EngineLimits(chosen.batch_tokens)
    engine = load_engine(chosen.model, None, chosen.precision, limits)
    engine.warm_up()
    tokenizer = load_tokenizer(chosen.model)
    documents = chosen.requests * DOCUMENTS
    lengths: list[int] = []
    tokenizing, scoring = [], []
    for turn in track(range(chosen.turns + 1), "turns"):
        requests = _requests(Traffic(turn), chosen.requests)
        started = time.perf_counter()
        portions = prepared(tokenizer, requests, chosen.portion_tokens)
        tokenized = time.perf_counter()
        scored(engine, portions, chosen.portion_tokens, chosen.batch_tokens)
        scoring.append(time.perf_counter() - tokenized)
        tokenizing.append(tokenized - started)
        lengths += [tokens for _, each in portions for tokens in each.portion().lengths]
    speeds = _rates([documents] * chosen.turns, scoring[1:])  # The first turn is not counted.
    return {
        "model": chosen.model,
        "description": engine.description,
        "device": engine.device,
        "precision": engine.precision,
        "tokens_mean": round(statistics.mean(lengths), 1),
        "documents_per_s": speeds,
        "documents_per_s_median": statistics.median(speeds),
        "tokenized_documents_per_s_of_one_thread": round(documents / statistics.median(tokenizing)),
    }


def _compare(chosen: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = minilm.write(folder)
        engine = load_engine(name, None, chosen.precision, EngineLimits(chosen.batch_tokens))
        use_cpu_threads(0)
        tokenizer = load_tokenizer(name)
        field = _contestants(folder, tokenizer, engine, chosen)
        turns = [_requests(Traffic(turn), chosen.requests) for turn in range(chosen.turns + 1)]
        typical = compare(field, tokenizer, turns)
        _show("lengths as in MS MARCO", typical)
        ours = next(speed for speed in typical.speeds if speed.name == OURS)
        peak = matmul_peak(PRECISIONS[engine.precision])
        needed = minilm.needed_flop(config, _lengths(tokenizer, [r for t in turns[1:] for r in t]))
        share = needed * ours.median / peak
        result: dict[str, Any] = {
            "machine": asdict(machine()),
            "precision": engine.precision,
            "description": engine.description,
            "ratio_vs_crossencoder_fp32": typical.ratio("CrossEncoder float32"),
            "ratio_vs_crossencoder_bf16": typical.ratio("CrossEncoder bfloat16"),
            "ratio_vs_openvino_bf16": typical.ratio("OpenVINO bfloat16"),
            "ratio_vs_openvino_fp32": typical.ratio("OpenVINO float32"),
            "matmul_peak_gflop_per_s": round(peak / 1e9, 1),
            "mflop_per_document": round(needed / 1e6),
            "share_of_matmul_peak": round(share, 3),
            "typical": asdict(typical),
        }
        if not chosen.quick:
            result["ratio_vs_torch_compile"] = typical.ratio("torch.compile")
            # Skip formats that this CPU has no instructions for; they would take most of the time.
            able = {name: score for name, score in field.items() if typical.ratio(name) < 5}
            result |= _sweeps(folder, tokenizer, able, chosen)
    return result


def _contestants(
    folder: Path, tokenizer: Tokenizer, engine: Engine, chosen: argparse.Namespace
) -> dict[str, contestants.Score]:
    float32, bfloat16 = torch.float32, torch.bfloat16
    portion, batch = chosen.portion_tokens, chosen.batch_tokens
    passes = suitable_passes("cpu", batch)
    field = {
        OURS: contestants.this_engine(tokenizer, engine, portion, batch),
        "CrossEncoder float32": contestants.sentence_transformers(folder, float32),
        "CrossEncoder bfloat16": contestants.sentence_transformers(folder, bfloat16),
        "OpenVINO float32": contestants.plain_openvino(folder, "float32", passes),
        "OpenVINO bfloat16": contestants.plain_openvino(folder, "bfloat16", passes),
    }
    if not chosen.quick:
        field["torch.compile"] = contestants.compiled(folder, PRECISIONS[engine.precision], passes)
    return field


def compare(
    field: dict[str, contestants.Score], tokenizer: Tokenizer, turns: Sequence[Sequence[Request]]
) -> Comparison:
    """Run all of ``field`` on each turn's requests. The first turn is not counted."""
    logits: dict[str, list[float]] = {name: [] for name in field}
    seconds: dict[str, list[float]] = {name: [] for name in field}
    for requests in track(turns, "turns"):
        for name, score in field.items():
            started = time.perf_counter()
            logits[name] += score(requests)
            seconds[name].append(time.perf_counter() - started)
    counts = [sum(len(request.documents) for request in requests) for requests in turns[1:]]
    lengths = [_lengths(tokenizer, requests) for requests in turns[1:]]
    speeds = [
        Speed(
            name=name,
            documents_per_s=_rates(counts, seconds[name][1:]),
            tokens_per_s=_rates([sum(one) for one in lengths], seconds[name][1:]),
            difference_max=max(
                abs(one - ours) for one, ours in zip(logits[name], logits[OURS], strict=True)
            ),
        )
        for name in field
    ]
    tokens = [length for one in lengths for length in one]
    return Comparison(round(statistics.mean(tokens), 1), speeds)


def _rates(amounts: Sequence[int], seconds: Sequence[float]) -> list[float]:
    return [round(amount / each, 2) for amount, each in zip(amounts, seconds, strict=True)]


def _sweeps(
    folder: Path,
    tokenizer: Tokenizer,
    field: dict[str, contestants.Score],
    chosen: argparse.Namespace,
) -> dict[str, Any]:
    by_length = []
    for length in LENGTHS:
        requests = [of_length(length, max(4, min(DOCUMENTS, 6_400 // length)))]
        by_length.append(compare(field, tokenizer, [requests] * (chosen.turns + 1)))
        _show(f"{length} tokens", by_length[-1])
    if chosen.plot is not None:
        _plot(by_length, chosen.plot)
    return {
        "by_length": [asdict(comparison) for comparison in by_length],
        "by_setting": [asdict(setting) for setting in _settings(folder, tokenizer, chosen)],
    }


def _settings(folder: Path, tokenizer: Tokenizer, chosen: argparse.Namespace) -> list[Setting]:
    found = []
    portion = SETTINGS.portion_tokens_max
    suitable = suitable_passes("cpu", portion).tokens_max
    ways = [(portion, forward, 0) for forward in PASSES]
    ways += [(portion, suitable, 0) for portion in PORTIONS]
    ways.append((portion, suitable, 1))
    for portion, forward, threads in ways:
        limits = EngineLimits(portion, forward, threads=threads)
        engine = load_engine(str(folder), None, chosen.precision, limits)
        ours = contestants.this_engine(tokenizer, engine, portion, portion)
        turns = [_requests(Traffic(turn), chosen.requests) for turn in range(4)]
        speed = compare({OURS: ours}, tokenizer, turns).speeds[0]
        found.append(Setting(portion, forward, threads, speed.median))
        print(found[-1], file=sys.stderr)
    return found


def _requests(traffic: Traffic, count: int) -> list[Request]:
    return [traffic.request(DOCUMENTS) for _ in range(count)]


def _lengths(tokenizer: Tokenizer, requests: Sequence[Request]) -> list[int]:
    return [tokens for request in requests for tokens in tokenizer.tokenize(job(request)).lengths]


def matmul_peak(precision: torch.dtype, seconds: float = 10.0) -> float:
    """Return the FLOP/s of the fastest matrix product of the feed-forward layer's shape.

    It is the best of ``seconds``: a shared machine reaches its full speed only for moments.
    """
    hidden, inner = 384, 1_536
    right = torch.rand(hidden, inner).to(precision)
    best, end = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        for rows in (512, 2_048, 4_096):
            left = torch.rand(rows, hidden).to(precision)
            started = time.perf_counter()
            left @ right
            best = max(best, 2 * rows * hidden * inner / (time.perf_counter() - started))
    return best


def _show(title: str, comparison: Comparison) -> None:
    table = Table("", "documents/s", "this engine is faster", "logits differ by", title=title)
    for speed in comparison.speeds:
        ratio = comparison.ratio(speed.name)
        table.add_row(
            speed.name, f"{speed.median:.1f}", f"{ratio:.2f}", f"{speed.difference_max:.1e}"
        )
    Console(stderr=True).print(table)


def _plot(by_length: Sequence[Comparison], picture: Path) -> None:
    figure, axis = plt.subplots(figsize=(8, 5))
    for place, speed in enumerate(by_length[0].speeds):
        lengths = [comparison.tokens_mean for comparison in by_length]
        tokens = [statistics.median(one.speeds[place].tokens_per_s) for one in by_length]
        axis.plot(lengths, tokens, marker="o", label=speed.name)
    axis.set(xscale="log", xlabel="tokens of a pair", ylabel="tokens/s", ylim=(0, None))
    axis.minorticks_off()
    axis.set_xticks(LENGTHS, labels=[str(length) for length in LENGTHS])
    axis.legend()
    figure.tight_layout()
    figure.savefig(picture)
    plt.close(figure)


if __name__ == "__main__":
    main()
