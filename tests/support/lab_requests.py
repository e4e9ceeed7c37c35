"""Send a rerank request to each URL and print the statuses and the ledger's charges as JSON.

python -m tests.support.lab_requests KEY URL ...

It runs in the lab's client host, which reaches the database that RERANK_DATABASE_URL names.
"""

import json
import os
import sys

import httpx
from sqlalchemy import create_engine, text

BODY = {"query": "what is a river", "documents": ["a bridge", "water and rain", "the old house"]}


def main() -> None:
    key, *urls = sys.argv[1:]
    headers = {"Authorization": f"Bearer {key}"}
    answers = [
        httpx.post(f"{url}/v1/rerank", json=BODY, headers=headers, timeout=60) for url in urls
    ]
    with create_engine(os.environ["RERANK_DATABASE_URL"]).connect() as connection:  # noqa: TID251 - the lab sets it
        charges = connection.execute(text("SELECT request_id, amount FROM charges")).all()
    sys.stdout.write(
        json.dumps(
            {
                "statuses": [answer.status_code for answer in answers],
                "ids": [answer.json().get("id") for answer in answers],
                "charges": [list(charge) for charge in charges],
            }
        )
    )


if __name__ == "__main__":
    main()
