"""Build the held-out collections, from which no model has learned.

    python -m training.collections --data FOLDER --sources FOLDER --out FOLDER

``--data`` is the folder of the training sets of DATA.md, of which only held-out passages are read.
``--sources`` keeps the downloaded files; those that are there are not downloaded again. The result
is a folder for each collection, as `testkit.judged` reads them. Queries are chosen by the hash of
their texts, so every build has the same result. Candidates of a query are BM25's best documents and
its answers, in BM25's order.
"""

import argparse
import gzip
import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import bm25s
import requests

from training.sources import SOURCES, Source, identity_of

QUERIES_MAX = 60
CANDIDATES = 20
"""Number of BM25's best documents that are candidates."""

TIMEOUT_S = 60

RAW = "https://raw.githubusercontent.com"
DEBIAN = "https://snapshot.debian.org/file"


@dataclass(frozen=True, slots=True)
class File:
    """A file to download, under an address whose content does not change."""

    address: str
    sha256: str


FILES = {
    "banking77-test.csv": File(
        f"{RAW}/PolyAI-LDN/task-specific-datasets/57ec275d8078af65b7731c2a98be812d844a6d6b"
        "/banking_data/test.csv",
        "d12d6e3bc4c3103966ae786dc435913c0c563dfa328f5a3646d0e62cfeeb474d",
    ),
    "banking77-train.csv": File(
        f"{RAW}/PolyAI-LDN/task-specific-datasets/57ec275d8078af65b7731c2a98be812d844a6d6b"
        "/banking_data/train.csv",
        "b06e26ac675513959a63135f11b94ea7786ed02da65db93a5650d8838cbc664b",
    ),
    "covid-qa.json": File(
        f"{RAW}/deepset-ai/COVID-QA/fb2eb5e249618457e5359806601086c635c8eb8f"
        "/data/question-answering/200423_covidQA.json",
        "ab310b4e39f726e087c8fa3d1787c73771dacddc584977204ebe3cc889ee1264",
    ),
    "pubmedqa.json": File(
        f"{RAW}/pubmedqa/pubmedqa/1cbae8e92f72f20c8d3747cbb3bf5bc53554d997/data/ori_pqal.json",
        "8b3276be8942ebbd77f3ddcda12c1749bf0e490045a736fd8438ee40cf37a41d",
    ),
    "perl-doc.deb": File(
        f"{DEBIAN}/fc977b18b90dbe78b147029a789b0cac4702341b",
        "f4269cff4576d6f02a6756df842988e58451c7e945b08517dd235531b24e48f8",
    ),
    "python3-doc.deb": File(
        f"{DEBIAN}/924896f88455aa449baeae5c3268c4672b95c9b8",
        "5b3594189d6ef9a6963ce0347fd307a1cc67620ad697e144db366070e2e146be",
    ),
    "sqlite3-doc.deb": File(
        f"{DEBIAN}/2a0943c41ea548999219087d8ccfeae78bc1104e",
        "466e30d7066e2641fa13e56bc662a2ad521b8cc9c17dde9c9dac3d4f105e32f2",
    ),
}


class WrongContent(Exception):
    """A file is not the expected one. The message names it."""


def fetch(name: str, file: File, folder: Path) -> None:
    """Download the file unless it is there, and check it.

    Raises: WrongContent, RequestException.
    """
    path = folder / name
    if not path.exists():
        answer = requests.get(file.address, timeout=TIMEOUT_S)
        answer.raise_for_status()
        path.write_bytes(answer.content)
    if sha256(path.read_bytes()).hexdigest() != file.sha256:
        raise WrongContent(f"{path} does not have the expected SHA-256; delete it and try again")


def build(source: Source, folder: Path) -> None:
    """Write queries, judgements and candidates of ``source`` to ``folder``."""
    docids = sorted(source.documents)
    index = bm25s.BM25(method="lucene", k1=0.9, b=0.4)
    index.index(tokens([source.documents[docid] for docid in docids]), show_progress=False)
    asked: dict[str, list[str]] = {}
    for query, answers in source.questions:
        asked.setdefault(query, []).extend(answers)
    chosen = sorted((identity_of(query), query) for query in asked)[:QUERIES_MAX]
    folder.mkdir(parents=True, exist_ok=True)
    with (
        (folder / "queries.tsv").open("w", encoding="utf-8") as queries,
        (folder / "qrels.txt").open("w", encoding="utf-8") as qrels,
        (folder / "candidates.jsonl.gz").open("wb") as packed,
        gzip.GzipFile(fileobj=packed, mode="wb", filename="", mtime=0) as lines,
    ):
        for qid, query in chosen:
            relevant = set(asked[query])
            queries.write(f"{qid}\t{query}\n")
            qrels.writelines(f"{qid} 0 {answer} 1\n" for answer in sorted(relevant))
            scores = index.get_scores(bm25s.tokenize(query, return_ids=False, **OPTIONS)[0])
            ranked = sorted(zip(docids, scores, strict=True), key=lambda each: -each[1])
            candidates = [
                {"docid": docid, "text": source.documents[docid], "bm25": round(float(score), 4)}
                for place, (docid, score) in enumerate(ranked)
                if place < CANDIDATES or docid in relevant
            ]
            line = {"qid": qid, "query": query, "candidates": candidates}
            lines.write(json.dumps(line).encode() + b"\n")


OPTIONS = {"stopwords": "en", "show_progress": False}


def tokens(texts: list[str]) -> object:
    return bm25s.tokenize(texts, **OPTIONS)


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the held-out collections.")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/train"))
    parser.add_argument("--sources", type=Path, default=Path("var/training/sources"))
    parser.add_argument("--out", type=Path, default=Path("var/training/collections"))
    chosen = parser.parse_args()
    chosen.sources.mkdir(parents=True, exist_ok=True)
    for name, file in FILES.items():
        fetch(name, file, chosen.sources)
    for name, read in SOURCES.items():
        source = read(chosen.data, chosen.sources)
        build(source, chosen.out / name)
        print(f"{name}: {len(source.questions)} questions, {len(source.documents)} documents")


if __name__ == "__main__":
    main()
