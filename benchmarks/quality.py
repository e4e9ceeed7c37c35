"""How well does a model order documents? NDCG@10 of reranking a judged collection's candidates.

    python -m benchmarks.quality --model MODEL --data FOLDER

The model is whatever the service serves: a hub id, a local folder, or ``embedded``; it runs in the
service's own tokenizer and engine. The folder holds a collection (files plain or .gz):

    candidates.jsonl  a line a query: {"qid", "query", "candidates": [{"docid", "text", "bm25"}]}
    qrels.txt         TREC form: qid 0 docid grade
    corpus.jsonl      {"docid", "text"}, only where candidates have no text

Queries without a judgement are left out. The interval is over queries: it says what another draw
of such queries might have given, not how exact the figure is on these.
"""

import argparse
import gzip
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

if not __package__:  # Run as a file: make the repository importable, as -m does.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import ir_measures
import numpy as np
from rich.console import Console
from rich.progress import track

from serve_app.domain.model import Portion, RerankJob, Truncation
from serve_app.domain.ranking import rank
from serve_app.domain.units import Instant, ModelId, RequestId, Seconds
from serve_app.engine.loading import EngineLimits, load_engine, load_tokenizer
from serve_app.engine.tokenizer import PairTokenizer
from serve_app.ports import Engine

NDCG_AT_10 = ir_measures.nDCG @ 10

LIMITS = EngineLimits(batch_tokens_max=8_192, forward_tokens_max=4_096)
"""The service's defaults."""

RESAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class JudgedQuery:
    """One query, its candidates as the first stage ordered them, and what people said of them."""

    qid: str
    query: str
    docids: tuple[str, ...]
    texts: tuple[str, ...]
    grades: dict[str, int]
    """Of every judged document, candidates or not."""


@dataclass(frozen=True, slots=True)
class QueryResult:
    """NDCG@10 of one query, reranked and as the first stage had it. Without the query's text, which
    some collections do not allow to be passed on."""

    qid: str
    ndcg: float
    first_stage_ndcg: float


@dataclass(frozen=True, slots=True)
class Quality:
    """The answer, for people and for files."""

    model: str
    description: str
    device: str
    precision: str
    collection: str
    depth: int
    queries: int
    documents: int
    ndcg: float
    interval_95: tuple[float, float]
    first_stage_ndcg: float
    documents_per_s: float
    """Tokenizing included, loading and warming up not."""

    per_query: tuple[QueryResult, ...]


def read_collection(folder: Path, depth: int, queries_max: int | None = None) -> list[JudgedQuery]:
    """The collection in ``folder``, ``depth`` candidates a query. Raises: FileNotFoundError."""
    corpus: dict[str, str] = {}
    if _find(folder, "corpus.jsonl") is not None:
        corpus = {line["docid"]: line["text"] for line in _json_lines(folder, "corpus.jsonl")}
    grades = _grades(folder)
    judged = []
    for query in _json_lines(folder, "candidates.jsonl"):
        candidates = query["candidates"][:depth]
        docids = tuple(candidate["docid"] for candidate in candidates)
        texts = tuple(
            candidate["text"] if "text" in candidate else corpus[candidate["docid"]]
            for candidate in candidates
        )
        qid = query["qid"]
        if qid in grades:
            judged.append(JudgedQuery(qid, query["query"], docids, texts, grades[qid]))
    return judged[:queries_max]


def _grades(folder: Path) -> dict[str, dict[str, int]]:
    grades: dict[str, dict[str, int]] = {}
    with _open(folder, "qrels.txt") as lines:
        for line in lines:
            qid, _, docid, grade = line.split()
            grades.setdefault(qid, {})[docid] = int(grade)
    return grades


def measure(
    engine: Engine, tokenizer: PairTokenizer, collection: list[JudgedQuery]
) -> tuple[list[QueryResult], float]:
    """Results in the collection's order, and how many seconds scoring took."""
    results = []
    started = time.perf_counter()
    progress = track(collection, "Scoring", console=Console(stderr=True), transient=True)
    orders = [(judged, rerank(engine, tokenizer, judged)) for judged in progress]
    elapsed_s = time.perf_counter() - started
    for judged, order in orders:
        reranked = tuple(judged.docids[index] for index in order)
        results.append(QueryResult(judged.qid, ndcg(judged, reranked), ndcg(judged, judged.docids)))
    return results, elapsed_s


def rerank(engine: Engine, tokenizer: PairTokenizer, judged: JudgedQuery) -> list[int]:
    """Positions of the query's candidates, best first, as the service would answer."""
    job = RerankJob(
        request_id=RequestId(judged.qid),
        model=ModelId("measured"),
        query=judged.query,
        documents=judged.texts,
        top_n=None,
        truncation=Truncation.LONGEST_FIRST,
        timeout_s=Seconds(0),
        deadline=Instant(0),
    )
    pairs = tokenizer.tokenize(job).pairs
    portion = Portion(
        request_id=job.request_id,
        input_ids=b"".join(pair.input_ids for pair in pairs),
        lengths=tuple(pair.tokens for pair in pairs),
        query_tokens=tuple(pair.query_tokens for pair in pairs),
    )
    return rank(engine.score([portion])[0], top_n=None)


def ndcg(judged: JudgedQuery, docids: tuple[str, ...]) -> float:
    """NDCG@10 of one order. It is given as falling scores, so that no tie is broken elsewhere."""
    run = {judged.qid: {docid: float(-place) for place, docid in enumerate(docids)}}
    value: float = ir_measures.calc_aggregate([NDCG_AT_10], {judged.qid: judged.grades}, run)[
        NDCG_AT_10
    ]
    return value


def interval_95(values: list[float]) -> tuple[float, float]:
    """Percentile bootstrap of the mean; the same values give the same interval."""
    rng = np.random.default_rng(0)
    means = rng.choice(np.array(values), size=(RESAMPLES, len(values))).mean(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def evaluate(
    model: str, data: Path, precision: str, depth: int, queries_max: int | None
) -> Quality:
    """Load, warm up, rerank everything, and sum up."""
    collection = read_collection(data, depth, queries_max)
    engine = load_engine(model, None, precision, LIMITS)
    tokenizer = load_tokenizer(model)
    engine.warm_up()
    results, elapsed_s = measure(engine, tokenizer, collection)
    documents = sum(len(judged.docids) for judged in collection)
    values = [result.ndcg for result in results]
    return Quality(
        model=model,
        description=engine.description,
        device=engine.device,
        precision=engine.precision,
        collection=data.name,
        depth=depth,
        queries=len(collection),
        documents=documents,
        ndcg=float(np.mean(values)),
        interval_95=interval_95(values),
        first_stage_ndcg=float(np.mean([result.first_stage_ndcg for result in results])),
        documents_per_s=documents / elapsed_s,
        per_query=tuple(results),
    )


def report(quality: Quality, *, per_query: bool) -> Iterator[str]:
    """Lines for a person; the first is the figure."""
    low, high = quality.interval_95
    yield f"NDCG@10 {quality.ndcg:.4f}  95 % interval {low:.4f} to {high:.4f}"
    yield f"first stage (bm25) NDCG@10 {quality.first_stage_ndcg:.4f}"
    yield f"queries {quality.queries}, documents {quality.documents} ({quality.collection})"
    yield f"model {quality.model}: {quality.description}"
    yield f"precision {quality.precision} on {quality.device}"
    yield f"documents/s {quality.documents_per_s:.0f}"
    if per_query:
        for result in quality.per_query:
            yield f"{result.qid}\t{result.ndcg:.4f}\t(bm25 {result.first_stage_ndcg:.4f})"


def _find(folder: Path, name: str) -> Path | None:
    paths = (folder / name, folder / f"{name}.gz")
    return next((path for path in paths if path.is_file()), None)


def _open(folder: Path, name: str) -> TextIO:
    path = _find(folder, name)
    if path is None:
        raise FileNotFoundError(f"{folder} has neither {name} nor {name}.gz")
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8")
    return path.open(encoding="utf-8")


def _json_lines(folder: Path, name: str) -> Iterator[dict[str, Any]]:
    with _open(folder, name) as lines:
        for line in lines:
            yield json.loads(line)


def main() -> None:
    parser = argparse.ArgumentParser(description="NDCG@10 of a model on a judged collection.")
    parser.add_argument("--model", required=True, help="hub id, local folder, or `embedded`")
    parser.add_argument("--data", required=True, type=Path, help="the collection's folder")
    parser.add_argument("--precision", default="auto", help="auto, float32, bfloat16 or float16")
    parser.add_argument("--depth", type=int, default=100, help="candidates a query")
    parser.add_argument("--limit", type=int, help="only the first so many queries")
    parser.add_argument("--per-query", action="store_true", help="print every query's figure")
    parser.add_argument("--json", type=Path, help="write everything to this file")
    chosen = parser.parse_args()
    quality = evaluate(chosen.model, chosen.data, chosen.precision, chosen.depth, chosen.limit)
    for line in report(quality, per_query=chosen.per_query):
        print(line)
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(asdict(quality), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
