"""Judged collections: queries, their candidates, and what people said of them.

From a folder (`read_folder`), in files plain or .gz:

    candidates.jsonl  a line a query: {"qid", "query", "candidates": [{"docid", "text", "bm25"}]}
    qrels.txt         TREC form: qid 0 docid grade
    corpus.jsonl      {"docid", "text"}, only where candidates have no text

or by an id of `ir_datasets` (`read_dataset`), which downloads what it needs at first use. Queries
without a judgement are left out; judged queries without a candidate stay, and count as missed.
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
"""By query id, then by document id."""

DATASET_PARTS = ("docs", "queries", "qrels", "scoreddocs")

CONNECT_TIMEOUT_S = "5"
"""Of each of ir_datasets' three tries at a source; with its own 15 s, a dead line takes 90 s."""

RETRY_CHATTER = ("download error", "Download failed")


class CollectionError(Exception):
    """A collection cannot be read; the message says in one line why and what to do."""


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
class Collection:
    """What one measurement reads."""

    name: str
    queries: int
    judged: Iterable[JudgedQuery]
    """To be read once: a dataset's texts are fetched as its queries are reached."""

    depth: int | None
    """Candidates a query at most; ``None`` is all there are."""

    relevant_grade: int
    """The lowest grade that MRR counts as relevant."""

    ordered: bool = True
    """Whether the candidates come in an order. MS MARCO's official ones do not."""

    complete_dataset: str | None = None
    """The ir_datasets id of which these are all queries and all candidates, if so."""


def read_folder(folder: Path, depth: int, queries_max: int | None = None) -> Collection:
    """The collection in ``folder``. Raises: CollectionError."""
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
    """The dataset that ir_datasets knows by this id, downloaded by it unless it is at hand.

    The smallest files come first, so that a machine without a network learns it soon.

    Raises: CollectionError.
    """
    os.environ.setdefault("IR_DATASETS_DL_TIMEOUT", CONNECT_TIMEOUT_S)  # noqa: TID251 - its only way
    logging.getLogger("ir_datasets").addFilter(_is_no_chatter)
    try:
        return _read_dataset(dataset_id, depth, queries_max)
    except RequestException as error:
        raise _unfetched(dataset_id, error) from error
    except RuntimeError as error:
        # Where a file has mirrors, the arguments are a sentence and [(mirror, its error), ...].
        if len(error.args) != 2:
            raise
        raise _unfetched(dataset_id, error.args[1][0][1]) from error
    except (OSError, ValueError) as error:
        # Too little disk, a damaged file, or one that has to be brought by hand.
        raise CollectionError(f"dataset {dataset_id}: {' '.join(str(error).split())}") from error


def relevant_grade(grades: Grades) -> int:
    """2 where grades go up to 3, else 1.

    TREC DL grades 0 to 3, and its 1 is "related, but does not answer": its MRR counts from 2.
    """
    return 2 if max(grade for query in grades.values() for grade in query.values()) >= 3 else 1


def _read_dataset(dataset_id: str, depth: int | None, queries_max: int | None) -> Collection:
    dataset = _load(dataset_id)
    grades: Grades = dataset.qrels_dict()
    queries = {query.query_id: query.default_text() for query in dataset.queries_iter()}
    judged_qids = [qid for qid in queries if qid in grades]
    qids = judged_qids[:queries_max]
    _require_queries(dataset_id, len(qids))
    candidates, ordered = _candidates(dataset, qids)
    complete = len(qids) == len(judged_qids) and (
        depth is None or all(len(docids) <= depth for docids in candidates.values())
    )
    store = dataset.docs_store()
    # The first look-up downloads and indexes the documents: now, not under the progress bar.
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
        complete_dataset=dataset_id if complete else None,
    )


def _load(dataset_id: str) -> Any:
    import ir_datasets  # noqa: PLC0415 - its import makes folders under the home directory

    try:
        dataset = ir_datasets.load(dataset_id)
    except KeyError as error:
        raise CollectionError(f"dataset {dataset_id}: ir_datasets knows no such id") from error
    missing = [part for part in DATASET_PARTS if not dataset.has(part)]
    if missing:
        raise CollectionError(
            f"dataset {dataset_id}: it offers no {' and no '.join(missing)}; name one that has "
            "candidates to rerank (scoreddocs) and judgements (qrels)"
        )
    return dataset


def _candidates(dataset: Any, qids: list[str]) -> tuple[dict[str, tuple[str, ...]], bool]:
    """Document ids by query, best score first, and whether the scores say anything at all.

    Equal scores keep the file's order.
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
    """A failed download is said once, by us; terms of use and progress stay."""
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
    """The objects of the file ``name``, plain or .gz. Raises: CollectionError."""
    with _open(folder, name) as lines:
        for line in lines:
            yield json.loads(line)
