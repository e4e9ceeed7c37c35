"""The published figures of the MS MARCO cross-encoders, for comparison with measurements.

NDCG@10 and MRR@10 are for reranking all official candidates (the top 1000) of a query, so only
such measurements are compared. Documents/s were measured on a V100 and are not compared.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

SOURCE = "the model cards; sbert.net, pretrained cross-encoders"


@dataclass(frozen=True, slots=True)
class Row:
    """The published figures of one model, as fractions rather than percent."""

    model: str
    ndcg_dl19: float
    mrr_dev: float
    documents_per_s_v100: int


TABLE = (  # From SOURCE.
    Row("cross-encoder/ms-marco-TinyBERT-L2-v2", 0.6984, 0.3256, 9_000),
    Row("cross-encoder/ms-marco-MiniLM-L2-v2", 0.7101, 0.3485, 4_100),
    Row("cross-encoder/ms-marco-MiniLM-L4-v2", 0.7304, 0.3770, 2_500),
    Row("cross-encoder/ms-marco-MiniLM-L6-v2", 0.7430, 0.3901, 1_800),
    Row("cross-encoder/ms-marco-MiniLM-L12-v2", 0.7431, 0.3902, 960),
)

NDCG_DL19 = "NDCG@10 TREC DL 2019"
MRR_DEV = "MRR@10 dev"

FIGURES = {
    "msmarco-passage/trec-dl-2019": NDCG_DL19,  # The same 43 queries: only judged ones are kept.
    "msmarco-passage/trec-dl-2019/judged": NDCG_DL19,
    "msmarco-passage/dev/small": MRR_DEV,
}
"""Names of the table's figures, by the ir_datasets id on which they were measured."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A measured figure and the same model's published one."""

    figure: str
    measured: float
    published: float
    difference: float
    """Measured minus published."""


@dataclass(frozen=True, slots=True)
class Reference:
    """The published figures that a report shows next to its own."""

    source: str
    rows: tuple[Row, ...]
    comparison: Comparison | None


def reference(
    model: str, complete_dataset: str | None, *, ndcg: float, mrr: float
) -> Reference | None:
    """Return the table if it has the model or the dataset; with a comparison if it has both.

    Args:
        model: A hub id or a local folder; only its last part counts.
        complete_dataset: The dataset, if all its queries and candidates were reranked.
    """
    row = next((row for row in TABLE if _name(row.model) == _name(model)), None)
    figure = FIGURES.get(complete_dataset) if complete_dataset is not None else None
    if row is None and figure is None:
        return None
    comparison = None
    if row is not None and figure is not None:
        by_ndcg = figure == NDCG_DL19
        measured, published = (ndcg, row.ndcg_dl19) if by_ndcg else (mrr, row.mrr_dev)
        comparison = Comparison(figure, measured, published, measured - published)
    return Reference(SOURCE, TABLE, comparison)


def lines(shown: Reference) -> Iterator[str]:
    yield f"published ({shown.source})"
    yield f"  {'':38}  NDCG@10 DL 2019  MRR@10 dev  documents/s V100"
    for row in shown.rows:
        yield (
            f"  {row.model:38}  {row.ndcg_dl19:15.4f}  {row.mrr_dev:10.4f}  "
            f"{row.documents_per_s_v100:16,}"
        )
    if shown.comparison is not None:
        of = shown.comparison
        yield (
            f"{of.figure}: measured {of.measured:.4f}, published {of.published:.4f}, "
            f"difference {of.difference:+.4f}"
        )


def _name(model: str) -> str:
    """Normalise a name: the hub has these models as both MiniLM-L-12-v2 and MiniLM-L12-v2."""
    return PurePosixPath(model).name.replace("-L-", "-L")
