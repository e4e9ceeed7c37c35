"""Is a cross-encoder better than its encoder? A table over judged collections.

    python -m training.evaluate --model embedded --json FILE COLLECTION COLLECTION ...

Every method orders the same candidates:

- ``bm25``: the order of the candidates;
- ``cosine``: the cosine of the encoder's mean states;
- ``maxsim``: late interaction of its last states, that is, for each query token the soft maximum
  of its cosines with the document's tokens, and the mean of these over the query's tokens;
- ``maxsim+cosine``: the sum of both, each standardised over the candidates of a query;
- the models, each in the service's tokenizer and engine, as in `benchmarks.quality.ranking`.

Every text is encoded once. The intervals are bootstrapped over queries. All correlations are
Spearman's, computed for each query over its candidates and then averaged: of scores with lengths,
and of scores with ``maxsim`` among candidates of similar length.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch.nn.functional import normalize
from transformers import AutoModel, AutoTokenizer

from benchmarks.quality.ranking import FOLDER_DEPTH, LIMITS, interval_95, ndcg, scores
from serve_app.domain.ranking import rank
from serve_app.engine.device import pick_precision
from serve_app.engine.loading import load_engine, load_tokenizer
from testkit.judged import JudgedQuery, read_folder
from training.data import ENCODER

TOKENS_MAX = 256
"""Most tokens of a text, as the encoder's authors recommend."""

SHARPNESS = 20.0
"""Factor on the cosines in the soft maximum of late interaction."""

LENGTHS = ((1, 64), (65, 128), (129, TOKENS_MAX))
"""Bands of document lengths in tokens of the encoder, inclusive; longer documents are cut."""

BAND_MIN = 5
"""Least number of a query's candidates in a band for a correlation."""

Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Encoded:
    """A text as the encoder sees it."""

    mean: torch.Tensor
    """(HIDDEN,): normalised mean state."""

    tokens: torch.Tensor
    """(L, HIDDEN) float16: the normalised last states without those of [CLS] and [SEP]."""


@dataclass(frozen=True, slots=True)
class Figures:
    """One method on one collection."""

    ndcg: float
    """NDCG@10."""

    interval_95: tuple[float, float]
    length_correlation: float | None
    """Of scores and document lengths; ``None``: not defined, as for the next."""

    maxsim_correlation: dict[str, float | None]
    """Of scores and those of ``maxsim``, by length of the documents in tokens."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All methods on one collection."""

    collection: str
    queries: int
    pairs: int
    methods: dict[str, Figures]


@cache
def padding_tokenizer() -> Any:
    """Load a separate tokenizer: padding would stay on for all users of `data.tokenizer`."""
    return AutoTokenizer.from_pretrained(ENCODER)


@torch.no_grad()  # type: ignore[untyped-decorator]  # torch is Any to mypy here
def encode(encoder: Any, texts: Sequence[str], batch_size: int = 32) -> dict[str, Encoded]:
    """Encode every text once."""
    distinct = sorted(set(texts), key=len)
    found = {}
    for start in range(0, len(distinct), batch_size):
        chosen = distinct[start : start + batch_size]
        batch = padding_tokenizer()(
            chosen, padding=True, truncation=True, max_length=TOKENS_MAX, return_tensors="pt"
        )
        states = encoder(**batch).last_hidden_state.float()
        for text, row, mask in zip(chosen, states, batch["attention_mask"].bool(), strict=True):
            real = row[mask]
            tokens = normalize(real[1:-1], dim=1).half()
            found[text] = Encoded(normalize(real.mean(0), dim=0), tokens)
    return found


def late_interaction(query: torch.Tensor, document: torch.Tensor) -> float:
    """Return the mean over query tokens of the soft maximum of cosines; 0 without tokens."""
    if not len(query) or not len(document):
        return 0.0
    cosines = query.float() @ document.float().T
    return float((SHARPNESS * cosines).logsumexp(1).mean() / SHARPNESS)


def standard(values: Scores) -> Scores:
    standardised: Scores = (values - values.mean()) / max(float(values.std()), 1e-9)
    return standardised


def encoder_scores(known: Mapping[str, Encoded], judged: JudgedQuery) -> dict[str, Scores]:
    """Return the scores of the candidates by the methods that need no cross-encoder."""
    query = known[judged.query]
    documents = [known[text] for text in judged.texts]
    cosine = np.array([float(each.mean @ query.mean) for each in documents])
    maxsim = np.array([late_interaction(query.tokens, each.tokens) for each in documents])
    return {
        "bm25": -np.arange(len(documents), dtype=np.float64),
        "cosine": cosine,
        "maxsim": maxsim,
        "maxsim+cosine": standard(maxsim) + standard(cosine),
    }


def correlation(first: Scores, second: Scores) -> float | None:
    """Return Spearman's correlation; ``None`` if there are too few values or one is constant."""
    if len(first) < BAND_MIN or not np.ptp(first) or not np.ptp(second):
        return None
    return float(spearmanr(first, second).statistic)


def mean(values: Sequence[float | None]) -> float | None:
    """Return the mean of the values that are defined."""
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None


def figures(
    judged: Sequence[JudgedQuery],
    found: Sequence[Scores],
    maxsim: Sequence[Scores],
    lengths: Sequence[Scores],
) -> Figures:
    """Summarise a method; all but ``judged`` have one value for each candidate of each query."""
    gains = []
    for each, values in zip(judged, found, strict=True):
        order = rank([float(value) for value in values], top_n=None)
        gains.append(ndcg(each, tuple(each.docids[place] for place in order)))
    by_length = {}
    for low, high in LENGTHS:
        inside = [(low <= length) & (length <= high) for length in lengths]
        rows = zip(found, maxsim, inside, strict=True)
        by_length[f"{low} to {high}"] = mean([correlation(a[kept], b[kept]) for a, b, kept in rows])
    return Figures(
        ndcg=float(np.mean(gains)),
        interval_95=interval_95(gains),
        length_correlation=mean(list(map(correlation, found, lengths))),
        maxsim_correlation=by_length,
    )


def evaluate(
    models: Sequence[str], folder: Path, precision: str, limits: tuple[int, int | None]
) -> Evaluation:
    """Score the collection in ``folder`` with all methods.

    Args:
        precision: Number format of all models, a name in `PRECISIONS` or ``auto``.
        limits: Candidates per query, and number of queries; ``None``: all queries.

    Raises: CollectionError, ModelLoadError.
    """
    judged = [each for each in read_folder(folder, *limits).judged if each.texts]
    dtype = pick_precision(precision, torch.device("cpu"))
    encoder = AutoModel.from_pretrained(ENCODER, dtype=dtype).eval()
    known = encode(encoder, [text for each in judged for text in (each.query, *each.texts)])
    rows = [encoder_scores(known, each) for each in judged]
    found = {name: [row[name] for row in rows] for name in rows[0]}
    for model in models:
        engine = load_engine(model, None, precision, LIMITS)
        score = partial(scores, engine, load_tokenizer(model))
        found[model] = [np.array(score(each), dtype=np.float64) for each in judged]
    lengths = [np.array([len(known[text].tokens) for text in each.texts]) for each in judged]
    return Evaluation(
        collection=folder.name,
        queries=len(judged),
        pairs=sum(len(each.texts) for each in judged),
        methods={
            name: figures(judged, values, found["maxsim"], lengths)
            for name, values in found.items()
        },
    )


def table(evaluations: Sequence[Evaluation]) -> list[str]:
    """Return the lines of the tables in RESULTS.md."""
    names = list(evaluations[0].methods)
    lines = [
        f"| collection | queries | {' | '.join(names)} |",
        f"|---|---|{'---|' * len(names)}",
    ]
    for each in evaluations:
        cells = [f"{each.methods[name].ndcg:.4f}" for name in names]
        lines.append(f"| {each.collection} | {each.queries} | {' | '.join(cells)} |")
    means = [np.mean([each.methods[name].ndcg for each in evaluations]) for name in names]
    lines.append(f"| mean | | {' | '.join(f'{value:.4f}' for value in means)} |")
    lines += ["", "| method | length | " + " | ".join(f"{a} to {b}" for a, b in LENGTHS) + " |"]
    lines.append("|---|---|" + "---|" * len(LENGTHS))
    for name in names:
        every = [each.methods[name] for each in evaluations]
        values = [mean([each.length_correlation for each in every])]
        values += [
            mean([each.maxsim_correlation[f"{low} to {high}"] for each in every])
            for low, high in LENGTHS
        ]
        cells = ["" if value is None else f"{value:.2f}" for value in values]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description="Cross-encoders against their encoder.")
    parser.add_argument("collections", type=Path, nargs="+", help="folders of judged collections")
    parser.add_argument(
        "--model", action="append", default=[], help="local folder or `embedded`; repeatable"
    )
    parser.add_argument("--precision", default="auto", help="as for benchmarks.quality.ranking")
    parser.add_argument("--depth", type=int, default=FOLDER_DEPTH, help="candidates per query")
    parser.add_argument("--limit", type=int, help="use only the first LIMIT queries of each")
    parser.add_argument("--json", type=Path, help="write everything to this file, as it is found")
    chosen = parser.parse_args()
    done: list[Evaluation] = []
    for folder in chosen.collections:
        done.append(evaluate(chosen.model, folder, chosen.precision, (chosen.depth, chosen.limit)))
        if chosen.json is not None:
            text = json.dumps([asdict(each) for each in done], indent=2)
            chosen.json.write_text(text + "\n", encoding="utf-8")
    print("\n".join(table(done)))


if __name__ == "__main__":
    main()
