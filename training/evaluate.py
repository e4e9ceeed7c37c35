"""Is a cross-encoder better than its encoder by cosine? Query by query, on one judged collection.

    python -m training.evaluate --model var/training/run/model --data COLLECTION

The model runs in the service's engine, as in `benchmarks.quality.ranking`. The encoder's cosine of
mean states is computed here, because the service does not offer it. The intervals are bootstrapped
over queries; the interval of the difference over the paired figures of each query.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch.nn.functional import normalize
from transformers import AutoModel, AutoTokenizer

from benchmarks.quality.ranking import FOLDER_DEPTH, evaluate, interval_95, ndcg
from serve_app.domain.ranking import rank
from testkit.judged import JudgedQuery, read_folder
from training.data import ENCODER

TOKENS_MAX = 256
"""Most tokens of a text, as the encoder's authors recommend."""

DRAW = 1e-6
"""Largest difference that counts as a tie."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """NDCG@10 of model and cosine on one collection; differences are model minus cosine."""

    model: str
    collection: str
    queries: int
    ndcg: float
    interval_95: tuple[float, float]
    cosine_ndcg: float
    cosine_interval_95: tuple[float, float]
    difference: float
    difference_interval_95: tuple[float, float]
    wins: int
    ties: int
    losses: int


@cache
def padding_tokenizer() -> Any:
    """Load a separate tokenizer: padding would stay on for all users of `data.tokenizer`."""
    return AutoTokenizer.from_pretrained(ENCODER)


@torch.no_grad()  # type: ignore[untyped-decorator]  # torch is Any to mypy here
def mean_states(encoder: Any, texts: Sequence[str], batch_size: int = 32) -> torch.Tensor:
    """Return the texts' normalised mean states, (N, hidden)."""
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    found = torch.zeros(len(texts), encoder.config.hidden_size)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch = padding_tokenizer()(
            [texts[index] for index in chosen],
            padding=True,
            truncation=True,
            max_length=TOKENS_MAX,
            return_tensors="pt",
        )
        states = encoder(**batch).last_hidden_state
        real = batch["attention_mask"][:, :, None]
        found[chosen] = normalize((states * real).sum(1) / real.sum(1))
    return found


def by_cosine(encoder: Any, judged: JudgedQuery, known: dict[str, torch.Tensor]) -> float:
    """Return NDCG@10 of the candidates ordered by cosine.

    Args:
        known: Document states by id; new documents are added.
    """
    new = {
        docid: text
        for docid, text in zip(judged.docids, judged.texts, strict=True)
        if docid not in known
    }
    query, *states = mean_states(encoder, [judged.query, *new.values()])
    known.update(zip(new, states, strict=True))
    order = rank([float(known[docid] @ query) for docid in judged.docids], top_n=None)
    return ndcg(judged, tuple(judged.docids[place] for place in order))


def compare(
    model: str, data: Path, precision: str, depth: int, queries_max: int | None = None
) -> Comparison:
    collection = read_folder(data, depth, queries_max)
    quality = evaluate(model, collection, precision)
    encoder = AutoModel.from_pretrained(ENCODER).eval()
    progress = track(
        collection.judged,
        "Cosine",
        collection.queries,
        console=Console(stderr=True),
        transient=True,
    )
    known: dict[str, torch.Tensor] = {}
    cosine = {judged.qid: by_cosine(encoder, judged, known) for judged in progress}
    ours = {result.qid: result.ndcg for result in quality.per_query}
    differences = [ours[qid] - cosine[qid] for qid in ours]
    return Comparison(
        model=model,
        collection=data.name,
        queries=len(ours),
        ndcg=quality.ndcg,
        interval_95=quality.interval_95,
        cosine_ndcg=sum(cosine.values()) / len(cosine),
        cosine_interval_95=interval_95(list(cosine.values())),
        difference=sum(differences) / len(differences),
        difference_interval_95=interval_95(differences),
        wins=sum(difference > DRAW for difference in differences),
        ties=sum(abs(difference) <= DRAW for difference in differences),
        losses=sum(difference < -DRAW for difference in differences),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="NDCG@10 against the encoder's cosine.")
    parser.add_argument("--model", required=True, help="local folder, or `embedded`")
    parser.add_argument("--data", type=Path, required=True, help="the judged collection's folder")
    parser.add_argument("--precision", default="auto", help="as for benchmarks.quality.ranking")
    parser.add_argument("--depth", type=int, default=FOLDER_DEPTH, help="candidates per query")
    parser.add_argument("--limit", type=int, help="use only the first LIMIT queries")
    parser.add_argument("--json", type=Path, help="write everything to this file")
    chosen = parser.parse_args()
    found = compare(chosen.model, chosen.data, chosen.precision, chosen.depth, chosen.limit)
    print(f"{found.collection}: {found.queries} queries, NDCG@10 (95 % interval)")
    for name, value, (low, high) in (
        ("model", found.ndcg, found.interval_95),
        ("cosine", found.cosine_ndcg, found.cosine_interval_95),
        ("difference", found.difference, found.difference_interval_95),
    ):
        print(f"{name:<11}{value:7.4f} ({low:.4f} to {high:.4f})")
    print(f"queries won {found.wins}, tied {found.ties}, lost {found.losses}")
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(asdict(found), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
