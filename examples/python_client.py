"""Rerank documents with httpx, and wait as long as the service asks for after a 429 or 503."""

import os
import time
from pathlib import Path
from typing import Any

import httpx

ADDRESS = os.environ.get("RERANK_ADDRESS", "http://127.0.0.1:8000")
TRIES = 5


def rerank(client: httpx.Client, query: str, documents: list[str]) -> list[dict[str, Any]]:
    for _ in range(TRIES):
        response = client.post("/v1/rerank", json={"query": query, "documents": documents})
        if response.status_code not in {httpx.codes.TOO_MANY_REQUESTS, 503}:
            break
        time.sleep(int(response.headers["retry-after"]))
    response.raise_for_status()
    results: list[dict[str, Any]] = response.json()["results"]
    return results


def main() -> None:
    key = os.environ.get("RERANK_API_KEY") or Path("var/dev.key").read_text().strip()
    documents = [
        "The Louvre is a museum in Paris.",
        "The Eiffel Tower is 330 metres tall.",
        "Paris is the capital of France.",
    ]
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=ADDRESS, headers=headers, timeout=60) as client:
        for result in rerank(client, "how tall is the eiffel tower", documents):
            print(f"{result['relevance_score']:.3f}  {documents[result['index']]}")


if __name__ == "__main__":
    main()
