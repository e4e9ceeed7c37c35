"""How well does a model order documents? NDCG@10 and MRR@10 of reranking a judged collection.

    python -m benchmarks.quality.ranking --model MODEL --data FOLDER
    python -m benchmarks.quality.ranking --model MODEL --dataset ID

The model is any model that the service can serve: a hub id, a local folder, or ``embedded``. It
runs in the service's tokenizer and engine. `testkit.judged` describes the files of a folder and
the source of a dataset.

The intervals are over queries: they show the variation between samples of such queries, not the
accuracy of the figures on these queries.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ir_measures
import numpy as np
from rich.console import Console
from rich.progress import track

from serve_app.domain.job import Job, pairs_of
from serve_app.domain.model import Portion, Truncation
from serve_app.domain.ranking import rank
from serve_app.domain.units import Instant, ModelId, RequestId, Seconds
from serve_app.engine.limits import EngineLimits
from serve_app.engine.loading import load_engine, load_tokenizer
from serve_app.engine.sources import ModelLoadError
from serve_app.engine.tokenizer import PairTokenizer
from serve_app.ports import Engine
from testkit.judged import (
    Collection,
    CollectionError,
    JudgedQuery,
    QueryResult,
    read_dataset,
    read_folder,
)

NDCG_AT_10 = ir_measures.nDCG @ 10

LIMITS = EngineLimits(batch_tokens_max=8_192)
"""The service's defaults."""

RESAMPLES = 10_000

FOLDER_DEPTH = 100
"""Default number of candidates per query from a folder. The default for a dataset is all."""


@dataclass(frozen=True, slots=True)
class Quality:
    """The result of the benchmark."""

    model: str
    description: str
    device: str
    precision: str
    collection: str
    depth: int | None
    """Most candidates per query; ``None``: no limit."""

    queries: int
    documents: int
    ndcg: float
    interval_95: tuple[float, float]
    mrr: float
    mrr_interval_95: tuple[float, float]
    relevant_grade: int
    """The lowest grade that MRR counts as relevant."""

    first_stage_ndcg: float | None
    documents_per_s: float
    """Includes tokenizing, but not loading and warm-up."""

    per_query: tuple[QueryResult, ...]


def evaluate(model: str, collection: Collection, precision: str) -> Quality:
    """Load, warm up, rerank everything, summarize. Raises: CollectionError, ModelLoadError."""
    engine = load_engine(model, None, precision, LIMITS)
    tokenizer = load_tokenizer(model)
    engine.warm_up()
    results, elapsed_s = measure(engine, tokenizer, collection)
    documents = sum(result.documents for result in results)
    ndcgs = [result.ndcg for result in results]
    mrrs = [result.mrr for result in results]
    firsts = [r.first_stage_ndcg for r in results if r.first_stage_ndcg is not None]
    return Quality(
        model=model,
        description=engine.description,
        device=engine.device,
        precision=engine.precision,
        collection=collection.name,
        depth=collection.depth,
        queries=len(results),
        documents=documents,
        ndcg=float(np.mean(ndcgs)),
        interval_95=interval_95(ndcgs),
        mrr=float(np.mean(mrrs)),
        mrr_interval_95=interval_95(mrrs),
        relevant_grade=collection.relevant_grade,
        first_stage_ndcg=float(np.mean(firsts)) if firsts else None,
        documents_per_s=documents / elapsed_s,
        per_query=tuple(results),
    )


def measure(
    engine: Engine, tokenizer: PairTokenizer, collection: Collection
) -> tuple[list[QueryResult], float]:
    """Return results in the collection's order, and the seconds that scoring took."""
    results = []
    elapsed_s = 0.0
    console = Console(stderr=True)
    for judged in track(
        collection.judged, "Scoring", total=collection.queries, console=console, transient=True
    ):
        started = time.perf_counter()
        order = rerank(engine, tokenizer, judged)
        elapsed_s += time.perf_counter() - started
        reranked = tuple(judged.docids[index] for index in order)
        results.append(
            QueryResult(
                qid=judged.qid,
                documents=len(judged.docids),
                ndcg=ndcg(judged, reranked),
                mrr=reciprocal_rank(judged, reranked, collection.relevant_grade),
                first_stage_ndcg=ndcg(judged, judged.docids) if collection.ordered else None,
            )
        )
    return results, elapsed_s


def rerank(engine: Engine, tokenizer: PairTokenizer, judged: JudgedQuery) -> list[int]:
    """Return the positions of the query's candidates, best first, as the service ranks them."""
    return rank(scores(engine, tokenizer, judged), top_n=None)


def scores(engine: Engine, tokenizer: PairTokenizer, judged: JudgedQuery) -> list[float]:
    """Return the scores of the query's candidates, in their order, as the service computes them."""
    if not judged.texts:
        return []
    job = Job(
        request_id=RequestId(judged.qid),
        model=ModelId("measured"),
        pairs=pairs_of(judged.query, judged.texts),
        top_n=None,
        truncation=Truncation.LONGEST_FIRST,
        timeout_s=Seconds(0),
        deadline=Instant(0),
    )
    tokenized = tokenizer.tokenize(job)
    portion = Portion(
        job.request_id, tokenized.input_ids, tokenized.lengths, tokenized.query_tokens
    )
    return list(engine.score([portion])[0])


def ndcg(judged: JudgedQuery, docids: tuple[str, ...]) -> float:
    return _calculate(NDCG_AT_10, judged, docids)


def reciprocal_rank(judged: JudgedQuery, docids: tuple[str, ...], relevant_grade: int = 1) -> float:
    """Return the reciprocal rank of the first relevant document; 0 if it is not in the top 10."""
    return _calculate(ir_measures.RR(rel=relevant_grade) @ 10, judged, docids)


def _calculate(measure: Any, judged: JudgedQuery, docids: tuple[str, ...]) -> float:
    """Compute a measure. Strictly falling scores represent the order, so there are no ties."""
    run = {judged.qid: {docid: float(-place) for place, docid in enumerate(docids)}}
    value: float = ir_measures.calc_aggregate([measure], {judged.qid: judged.grades}, run)[measure]
    return value


def interval_95(values: list[float]) -> tuple[float, float]:
    """Return a percentile bootstrap interval of the mean; it is the same for the same values."""
    rng = np.random.default_rng(0)
    means = rng.choice(np.array(values), size=(RESAMPLES, len(values))).mean(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def report(quality: Quality, *, per_query: bool) -> Iterator[str]:
    """Format the result; the first line has the main figure."""
    yield f"NDCG@10 {quality.ndcg:.4f}  {_interval(quality.interval_95)}"
    yield (
        f"MRR@10 {quality.mrr:.4f}  {_interval(quality.mrr_interval_95)}, "
        f"relevant from grade {quality.relevant_grade}"
    )
    yield f"first stage NDCG@10 {_or_none(quality.first_stage_ndcg)}"
    yield f"queries {quality.queries}, documents {quality.documents} ({quality.collection})"
    yield f"model {quality.model}: {quality.description}"
    yield f"precision {quality.precision} on {quality.device}"
    yield f"documents/s {quality.documents_per_s:.0f}"
    if per_query:
        for result in quality.per_query:
            first = _or_none(result.first_stage_ndcg)
            yield f"{result.qid}\t{result.ndcg:.4f}\t{result.mrr:.4f}\t(first stage {first})"


def _interval(interval: tuple[float, float]) -> str:
    low, high = interval
    return f"95 % interval {low:.4f} to {high:.4f}"


def _or_none(first_stage: float | None) -> str:
    return "none, candidates have no order" if first_stage is None else f"{first_stage:.4f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark; exit with status 1 and one line if collection or model is unavailable."""
    chosen = _parse(arguments)
    try:
        quality = evaluate(chosen.model, _collection(chosen), chosen.precision)
    except (CollectionError, ModelLoadError) as error:
        sys.exit(f"quality: {error}")
    for line in report(quality, per_query=chosen.per_query):
        print(line)
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(asdict(quality), indent=2) + "\n", encoding="utf-8")


def _collection(chosen: argparse.Namespace) -> Collection:
    if chosen.dataset is not None:
        return read_dataset(chosen.dataset, chosen.depth, chosen.limit)
    depth = FOLDER_DEPTH if chosen.depth is None else chosen.depth
    return read_folder(chosen.data, depth, chosen.limit)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="NDCG@10 and MRR@10 on a judged collection.")
    parser.add_argument("--model", required=True, help="hub id, local folder, or `embedded`")
    collection = parser.add_mutually_exclusive_group(required=True)
    collection.add_argument("--data", type=Path, help="the collection's folder")
    collection.add_argument("--dataset", help="the collection's id in ir_datasets")
    parser.add_argument("--precision", default="auto", help="auto, float32, bfloat16 or float16")
    parser.add_argument(
        "--depth",
        type=int,
        help=f"candidates per query; default: {FOLDER_DEPTH} of a folder, all of a dataset",
    )
    parser.add_argument("--limit", type=int, help="use only the first LIMIT queries")
    parser.add_argument("--per-query", action="store_true", help="print every query's figures")
    parser.add_argument("--json", type=Path, help="write everything to this file")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
