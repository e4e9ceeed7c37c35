"""Answer each call of the test with one client of a library; calls and replies are JSON lines.

The scripts in this folder run in virtual environments that have only the libraries under test.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

Reply = dict[str, Any]
"""``indices`` of the results, best first; ``texts`` if the client returns the documents; ``usage``
if it returns that."""

MODEL = "embedded"
RETRIES = 5
"""For clients that repeat a refused request only if they are configured to do so."""


@dataclass(frozen=True)
class Call:
    """One rerank request."""

    address: str
    """Base URL for the client."""

    key: str
    query: str
    documents: list[str]
    top_n: int
    """Number of results; at most the number of documents."""


def serve(clients: dict[str, Callable[[Call], Reply]]) -> None:
    """Answer calls with the client whose name is the first argument, until the input ends."""
    rerank = clients[sys.argv[1]]
    # What a library prints must not end up between the replies.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        try:
            reply = rerank(Call(**json.loads(line)))
        except Exception as error:
            reply = {"error": described(error)}
        print(json.dumps(reply), file=replies, flush=True)


def described(error: BaseException) -> Reply:
    """Return the class of an error, all statuses that it or its causes carry, and the text."""
    chain = list(_chain(error))
    statuses = {status for each in chain for status in _statuses(each)}
    text = "\n".join(str(each) for each in chain)
    return {"type": type(error).__name__, "statuses": sorted(statuses), "text": text}


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _statuses(error: BaseException) -> Iterator[int]:
    holders = (error, getattr(error, "response", None))
    for holder in holders:
        for name in ("status_code", "http_status", "status"):
            value = getattr(holder, name, None)
            if isinstance(value, int):
                yield value
