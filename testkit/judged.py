"""Judged collections: queries, their candidates, and human relevance grades.

`read_folder` reads these files, plain or .gz, from a folder:

    candidates.jsonl  one line per query:
                      {"qid", "query", "candidates": [{"docid", "text", "bm25"}]}
    qrels.txt         TREC format: qid 0 docid grade
    corpus.jsonl      {"docid", "text"}, only needed where candidates have no text

`read_dataset` reads a dataset of `ir_datasets`, which downloads it at first use. Queries without a
judgement are left out. Judged queries without candidates stay, and count as missed.
"""

import gzip
import json
import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from requests import RequestException

Grades = dict[str, dict[str, int]]
"""Grades by query id, then by document id."""

DATASET_PARTS = ("docs", "queries", "qrels", "scoreddocs")

CONNECT_TIMEOUT_S = "5"
"""Timeout of each of ir_datasets' three attempts per source. With its default of 15 s, a machine
without a network would wait 90 s."""

RETRY_CHATTER = ("download error", "Download failed")


class CollectionError(Exception):
    """A collection cannot be read. The message gives the reason and a remedy in one line."""


@dataclass(frozen=True, slots=True)
class JudgedQuery:
    """One query, its candidates in the order of the first stage, and relevance grades."""

    qid: str
    query: str
    docids: tuple[str, ...]
    texts: tuple[str, ...]
    grades: dict[str, int]
    """Grades of all judged documents, including documents that are not candidates."""


@dataclass(frozen=True, slots=True)
class QueryResult:
    """The figures of one query. It omits the query's text, which some collections do not allow to
    be redistributed."""

    qid: str
    documents: int
    ndcg: float
    mrr: float
    first_stage_ndcg: float | None
    """NDCG@10 of the first stage; ``None``: the candidates have no order."""


@dataclass(frozen=True, slots=True)
class Collection:
    """The input of one measurement."""

    name: str
    queries: int
    judged: Iterable[JudgedQuery]
    """Can be iterated only once: a dataset's texts are fetched query by query."""

    depth: int | None
    """Most candidates per query; ``None``: no limit."""

    relevant_grade: int
    """The lowest grade that MRR counts as relevant."""

    ordered: bool = True
    """Whether the candidates are ordered. MS MARCO's official ones are not."""


def read_folder(folder: Path, depth: int, queries_max: int | None = None) -> Collection:
    """Read the collection in ``folder``. Raises: CollectionError."""
    corpus: dict[str, str] = {}
    if _find(folder, "corpus.jsonl") is not None:
        corpus = {line["docid"]: line["text"] for line in json_lines(folder, "corpus.jsonl")}
    grades = _grades(folder)
    judged = []
    for query in json_lines(folder, "candidates.jsonl"):
        candidates = query["candidates"][:depth]
        docids = tuple(candidate["docid"] for candidate in candidates)
        texts = tuple(
            candidate["text"] if "text" in candidate else corpus[candidate["docid"]]
            for candidate in candidates
        )
        qid = query["qid"]
        if qid in grades:
            judged.append(JudgedQuery(qid, query["query"], docids, texts, grades[qid]))
    judged = judged[:queries_max]
    _require_queries(folder.name, len(judged))
    return Collection(folder.name, len(judged), judged, depth, relevant_grade(grades))


def read_dataset(dataset_id: str, depth: int | None, queries_max: int | None = None) -> Collection:
    """Read the dataset with this ir_datasets id; ir_datasets downloads it if needed.

    The smallest files are read first, so that a machine without a network fails quickly.

    Raises: CollectionError.
    """
    os.environ.setdefault("IR_DATASETS_DL_TIMEOUT", CONNECT_TIMEOUT_S)  # noqa: TID251 - its only setting
    logging.getLogger("ir_datasets").addFilter(_is_no_chatter)
    try:
        return _read_dataset(dataset_id, depth, queries_max)
    except RequestException as error:
        raise _unfetched(dataset_id, error) from error
    except RuntimeError as error:
        # For a file with mirrors, the arguments are a message and [(mirror, its error), ...].
        if len(error.args) != 2:
            raise
        raise _unfetched(dataset_id, error.args[1][0][1]) from error
    except (OSError, ValueError) as error:
        # The disk is full, a file is damaged, or a file must be downloaded by hand.
        raise CollectionError(f"dataset {dataset_id}: {' '.join(str(error).split())}") from error


def relevant_grade(grades: Grades) -> int:
    """Return the lowest grade that MRR counts as relevant: 2 if grades go up to 3, else 1.

    TREC DL has grades 0 to 3; its 1 means "related, but does not answer", so its MRR counts from 2.
    """
    return 2 if max(grade for query in grades.values() for grade in query.values()) >= 3 else 1


def _read_dataset(dataset_id: str, depth: int | None, queries_max: int | None) -> Collection:
    dataset = _load(dataset_id)
    grades: Grades = dataset.qrels_dict()
    queries = {query.query_id: query.default_text() for query in dataset.queries_iter()}
    qids = [qid for qid in queries if qid in grades][:queries_max]
    _require_queries(dataset_id, len(qids))
    candidates, ordered = _candidates(dataset, qids)
    store = dataset.docs_store()
    # The first look-up downloads and indexes the documents. Do it before the progress bar starts.
    _texts(store, next(filter(None, candidates.values()), ())[:1])

    def judged() -> Iterator[JudgedQuery]:
        for qid in qids:
            docids = candidates[qid][:depth]
            yield JudgedQuery(qid, queries[qid], docids, _texts(store, docids), grades[qid])

    return Collection(
        name=dataset_id,
        queries=len(qids),
        judged=judged(),
        depth=depth,
        relevant_grade=relevant_grade(grades),
        ordered=ordered,
    )


def _load(dataset_id: str) -> Any:
    import ir_datasets  # noqa: PLC0415 - its import creates folders in the home directory

    try:
        dataset = ir_datasets.load(dataset_id)
    except KeyError as error:
        raise CollectionError(f"dataset {dataset_id}: ir_datasets knows no such id") from error
    missing = [part for part in DATASET_PARTS if not dataset.has(part)]
    if missing:
        raise CollectionError(
            f"dataset {dataset_id}: it offers no {' and no '.join(missing)}; use one that has "
            "candidates to rerank (scoreddocs) and judgements (qrels)"
        )
    return dataset


def _candidates(dataset: Any, qids: list[str]) -> tuple[dict[str, tuple[str, ...]], bool]:
    """Return document ids by query, best score first, and whether any scores of a query differ.

    Documents with equal scores stay in the order of the file.
    """
    scored: dict[str, list[tuple[str, float]]] = {qid: [] for qid in qids}
    for line in dataset.scoreddocs_iter():
        if line.query_id in scored:
            scored[line.query_id].append((line.doc_id, line.score))
    ordered = any(len({score for _, score in of_query}) > 1 for of_query in scored.values())
    docids = {}
    for qid, of_query in scored.items():
        of_query.sort(key=lambda candidate: candidate[1], reverse=True)
        docids[qid] = tuple(docid for docid, _ in of_query)
    return docids, ordered


def _texts(store: Any, docids: tuple[str, ...]) -> tuple[str, ...]:
    found = store.get_many(docids)
    missing = next((docid for docid in docids if docid not in found), None)
    if missing is not None:
        raise CollectionError(f"document {missing} is a candidate, but not in the collection")
    return tuple(found[docid].default_text() for docid in docids)


def _is_no_chatter(record: logging.LogRecord) -> bool:
    """Return whether to keep a log record of ir_datasets.

    Failed downloads are dropped, because `CollectionError` reports them once.
    """
    return not record.getMessage().startswith(RETRY_CHATTER)


def _unfetched(dataset_id: str, error: Exception) -> CollectionError:
    request = error.request if isinstance(error, RequestException) else None
    where = f" at {request.url}" if request is not None else ""
    return CollectionError(
        f"dataset {dataset_id}: cannot be fetched ({type(error).__name__}{where}); its first use "
        "needs the network; on a machine without one use --data FOLDER"
    )


def _require_queries(name: str, queries: int) -> None:
    if queries == 0:
        raise CollectionError(f"{name}: no query has a judgement")


def _grades(folder: Path) -> Grades:
    grades: Grades = {}
    with _open(folder, "qrels.txt") as lines:
        for line in lines:
            qid, _, docid, grade = line.split()
            grades.setdefault(qid, {})[docid] = int(grade)
    return grades


def _find(folder: Path, name: str) -> Path | None:
    paths = (folder / name, folder / f"{name}.gz")
    return next((path for path in paths if path.is_file()), None)


def _open(folder: Path, name: str) -> TextIO:
    path = _find(folder, name)
    if path is None:
        raise CollectionError(f"{folder} has neither {name} nor {name}.gz")
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8")
    return path.open(encoding="utf-8")


def json_lines(folder: Path, name: str) -> Iterator[dict[str, Any]]:
    """Yield the objects of the file ``name``, plain or .gz. Raises: CollectionError."""
    with _open(folder, name) as lines:
        for line in lines:
            yield json.loads(line)
