"""Clients that each send one request after the other, and record the answers.

All requests of a key differ in their numbers of documents or tokens, and the number of tokens is
known in advance. So a charge identifies its request, even if the client got no answer and does not
know the request's id.
"""

import threading
from collections import Counter
from dataclasses import dataclass
from random import Random
from typing import Any

import httpx

from serve_app.domain.clock import SystemClock
from serve_app.domain.units import Moment
from testkit.log_leaks import DOCUMENT_MARKER, QUERY_MARKER
from testkit.office import Key
from testkit.tiny_models import WORDS

PRICE = 8
"""The price in ``cluster/production.yaml``, too, so that the lab can use this module."""

DOCUMENTS_MAX = 60
QUERY_WORDS_MAX = 8
EXTRA_WORDS_MAX = 400
"""Most extra words of one document; the model reads 512 tokens."""

PATIENCE_S = 15.0
"""Client timeout. It is longer than any request may take in a gateway; without a gateway, Ray's
proxy makes requests wait."""

SPECIAL_TOKENS = 3
"""Special tokens of one pair: [CLS] query [SEP] document [SEP]."""

REFUSALS = 3
"""Consecutive rejections after which a client switches to its next key."""

ROUTES = ("/v1/rerank", "/v2/rerank", "/rerank", "/v1/v2/rerank")
HUNG_UP, GAVE_UP = "hung up", f"gave up after {PATIENCE_S:g} s"
NO_ANSWER = "no answer"
NOT_OURS = "not from the service"
CLOCK = SystemClock()


@dataclass(frozen=True, slots=True)
class Said:
    """The contents of an answer with status 200."""

    request_id: str
    documents: int
    tokens: int
    amount: int


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request, as its client observed it."""

    name: str
    key_id: str
    documents: int
    tokens: int
    sent_at: Moment
    ended_at: Moment
    outcome: str
    """``200``, another status and its code, `HUNG_UP`, `GAVE_UP` or `NO_ANSWER`."""

    said: Said | None

    @property
    def amount(self) -> int:
        return self.documents * PRICE


class Client(threading.Thread):
    """A client that sends requests until `stop`."""

    def __init__(self, address: str, keys: list[Key], seed: str) -> None:
        """Create a client that uses each of ``keys`` until it is rejected a few times."""
        super().__init__(name=f"client-{keys[0].key_id}", daemon=True)
        self.exchanges: list[Exchange] = []
        self._address = address
        self._keys = keys
        self._random = Random(seed)
        self._sizes: Counter[int] = Counter()
        self._stopping = threading.Event()
        self._refusals = 0

    def run(self) -> None:
        with httpx.Client(base_url=self._address, timeout=PATIENCE_S) as http:
            while not self._stopping.is_set():
                exchange = self._exchange(http)
                self.exchanges.append(exchange)
                self._note_refusal(exchange)
                quickly = exchange.said is not None or exchange.outcome == HUNG_UP
                self._stopping.wait(self._random.uniform(0, 0.25 if quickly else 0.5))

    def stop(self) -> None:
        """Stop the client after its current request."""
        self._stopping.set()

    def answered_since(self, moment: Moment) -> bool:
        """Return whether a request that was sent after ``moment`` was served."""
        return any(each.said and each.sent_at > moment for each in self.exchanges[-200:])

    def _note_refusal(self, exchange: Exchange) -> None:
        self._refusals = self._refusals + 1 if exchange.outcome.startswith("401") else 0
        if self._refusals >= REFUSALS and len(self._keys) > 1:
            self._keys = self._keys[1:]
            self._sizes.clear()
            self._refusals = 0

    def _exchange(self, http: httpx.Client) -> Exchange:
        random, key = self._random, self._keys[0]
        count = self._count()
        query = [QUERY_MARKER, *random.choices(WORDS, k=random.randint(0, QUERY_WORDS_MAX - 1))]
        documents = self._documents(count, len(query))
        words = sum(len(document) for document in documents)
        tokens = count * (SPECIAL_TOKENS + len(query)) + words
        name = f"{self.name}-{len(self.exchanges)}"
        headers = {"x-request-id": name} | random.choice(
            ({"Authorization": f"Bearer {key.secret}"}, {"X-API-Key": key.secret})
        )
        patience_s = PATIENCE_S
        mood = random.random()
        if mood < 0.1:
            patience_s = random.uniform(0.003, 0.1)
        elif mood < 0.2:
            headers["x-request-timeout-s"] = f"{random.uniform(0.01, 0.2):.3f}"
        body = self._body(" ".join(query), [" ".join(document) for document in documents])
        sent_at = CLOCK.moment()
        outcome, said = _send(http, random.choice(ROUTES), body, headers, patience_s)
        return Exchange(name, key.key_id, count, tokens, sent_at, CLOCK.moment(), outcome, said)

    def _count(self) -> int:
        """Choose a number of documents, but none so often that documents become too long."""
        while True:
            count = self._random.randint(1, DOCUMENTS_MAX)
            if self._sizes[count] < EXTRA_WORDS_MAX * count:
                return count

    def _documents(self, count: int, query_words: int) -> list[list[str]]:
        """Return ``count`` documents, with a new total number of tokens."""
        # The pairs have 12 tokens each for any query, plus one for each use of ``count`` so far.
        self._sizes[count] += 1
        words = count * (QUERY_WORDS_MAX + 1 - query_words) + self._sizes[count]
        shares = [words // count + (index < words % count) for index in range(count)]
        return [[DOCUMENT_MARKER, *self._random.choices(WORDS, k=share - 1)] for share in shares]

    def _body(self, query: str, documents: list[str]) -> dict[str, Any]:
        random = self._random
        wrapped = random.random() < 0.3
        body: dict[str, Any] = {
            "query": query,
            "documents": [{"text": each} for each in documents] if wrapped else documents,
        }
        optional = {
            "model": random.choice(("tiny", "embedded", None)),
            "top_n": random.randint(1, 70),
            "return_documents": True,
            "raw_scores": True,
            "truncation_strategy": "longest_first",
            "rank_fields": ["text"],
        }
        return body | {name: value for name, value in optional.items() if random.random() < 0.3}


def _send(
    http: httpx.Client, route: str, body: object, headers: dict[str, str], patience_s: float
) -> tuple[str, Said | None]:
    impatient = patience_s < PATIENCE_S
    try:
        response = http.post(route, json=body, headers=headers, timeout=patience_s)
    except httpx.TimeoutException:
        return (HUNG_UP if impatient else GAVE_UP), None
    except httpx.TransportError:
        return NO_ANSWER, None
    if response.status_code == 200:
        assert response.headers["x-request-id"] == headers["x-request-id"]
    return outcome_of(response)


def outcome_of(response: httpx.Response) -> tuple[str, Said | None]:
    """Return the status, with the code of an error, and the content of an answer."""
    if response.status_code != 200:
        return f"{response.status_code} {_code(response)}", None
    answer = response.json()
    usage, meta = answer["usage"], answer["meta"]
    tokens = {
        usage["prompt_tokens"],
        usage["total_tokens"],
        meta["tokens"]["input_tokens"],
        meta["billed_units"]["total_tokens"],
    }
    assert len(tokens) == 1, "one answer has different numbers of tokens"
    said = Said(answer["id"], usage["documents"], tokens.pop(), meta["charge_micro_dollars"])
    return "200", said


def _code(response: httpx.Response) -> str:
    """Return the error's code, or `NOT_OURS` if the answer is not from the service."""
    try:
        return str(response.json()["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return NOT_OURS
