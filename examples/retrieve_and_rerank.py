"""Find documents with BM25, then rerank them with the service.

    python examples/retrieve_and_rerank.py "why does bread rise in the oven"

The collection is the small one of the tests. The library bm25s is one of the development packages.
"""

import json
import os
import sys
from pathlib import Path

import bm25s
import httpx

ADDRESS = os.environ.get("RERANK_ADDRESS", "http://127.0.0.1:8000")
COLLECTION = Path(__file__).parents[1] / "tests/quality/data/candidates.jsonl"
CANDIDATES = 20
SHOWN = 3


def read_collection() -> list[str]:
    lines = COLLECTION.read_text(encoding="utf-8").splitlines()
    texts = {each["text"] for line in lines for each in json.loads(line)["candidates"]}
    return sorted(texts)


def retrieve(collection: list[str], query: str) -> list[str]:
    """Return the texts of the collection that share the most words with the query."""
    index = bm25s.BM25()
    index.index(bm25s.tokenize(collection, show_progress=False), show_progress=False)
    words = bm25s.tokenize(query, show_progress=False)
    found, _ = index.retrieve(words, corpus=collection, k=CANDIDATES, show_progress=False)
    return [str(text) for text in found[0]]


def rerank(query: str, documents: list[str]) -> list[tuple[float, str]]:
    key = os.environ.get("RERANK_API_KEY") or Path("var/dev.key").read_text().strip()
    response = httpx.post(
        f"{ADDRESS}/v1/rerank",
        headers={"Authorization": f"Bearer {key}"},
        json={"query": query, "documents": documents, "top_n": SHOWN},
        timeout=60,
    )
    response.raise_for_status()
    results = response.json()["results"]
    return [(each["relevance_score"], documents[each["index"]]) for each in results]


def main(query: str) -> None:
    candidates = retrieve(read_collection(), query)
    print("BM25:")
    for text in candidates[:SHOWN]:
        print(f"       {text}")
    print("Reranked:")
    for score, text in rerank(query, candidates):
        print(f"{score:.3f}  {text}")


if __name__ == "__main__":
    main(" ".join(sys.argv[1:]) or "why does bread rise in the oven")
