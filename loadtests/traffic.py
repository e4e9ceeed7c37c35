"""Seeded random requests for load tests, by default with the text lengths of MS MARCO passages.

On judged passage collections, query-passage pairs have 67 tokens on average: 5 % have fewer than
37, the median is 62, and 95 % have fewer than 114. Document lengths are log-normal with that median
and 95th percentile, minus the query and three special tokens, clipped to 20..400 tokens. Words are
drawn from a fixed list by Zipf's law. A word takes 1.01 tokens on average in BERT's WordPiece, as
`tests/unit/loadtests/test_traffic.py` checks with the embedded model's tokenizer.
"""

import json
import random
from dataclasses import dataclass
from itertools import accumulate

from loadtests.lengths import MS_MARCO, QUERY_WORDS, TOKENS_PER_WORD, Lengths, lengths

_WORDS = """
    the of and to in a is for that on with as by it from are was at be this an or which can
    has not have its water more one also used most people time other may when city than such
    some between many after years system during number into state first about world made
    these been where body called river called high energy two over found each part form
    large small light blood cell heart plant animal food acid oil salt iron gold stone wood
    paper glass metal heat cold air wind rain snow sea lake island mountain forest desert
    valley coast road bridge tower house school church market court law tax bank loan price
    cost money trade labor union army navy war peace king queen president senate party vote
    right power treaty border region language music film novel poem author painter actor
    singer league team player game season doctor nurse patient disease virus vaccine drug
    dose symptom pain fever skin bone muscle nerve brain sleep diet sugar protein vitamin
    calorie weight height length speed distance temperature pressure volume mass force
    motion planet star moon orbit engine wheel battery circuit signal network computer
    software memory storage server client protocol database query index document passage
    ranking relevance measurement photosynthesis thermodynamics electromagnetic hypertension
    parliamentary archaeological constitutional
"""
WORDS = _WORDS.split()
CUMULATIVE_WEIGHTS = list(accumulate(1 / (rank + 2) for rank in range(len(WORDS))))

POOL = 4_096
"""Number of different queries and documents."""


@dataclass(frozen=True, slots=True)
class Request:
    """The texts of one rerank request."""

    query: str
    documents: list[str]


class Traffic:
    """An endless, repeatable stream of requests."""

    def __init__(self, seed: int, document_lengths: Lengths | None = None) -> None:
        self._random = random.Random(seed)
        self._lengths = document_lengths or lengths(MS_MARCO)

    def request(self, documents: int) -> Request:
        return Request(self.query(), [self.document() for _ in range(documents)])

    def query(self) -> str:
        return self._words(self._random.randint(*QUERY_WORDS))

    def document(self) -> str:
        tokens = self._lengths.draw(self._random)
        return self._words(max(1, round(tokens / TOKENS_PER_WORD)))

    def _words(self, count: int) -> str:
        return " ".join(self._random.choices(WORDS, cum_weights=CUMULATIVE_WEIGHTS, k=count))


class Bodies:
    """Request bodies, each assembled in microseconds from the serialized texts of a pool.

    The documents of a request are consecutive in the pool, from a random one on.

    Args:
        pair_tokens: The lengths of pairs, see `loadtests.lengths.lengths`.
        model: Name of the model; ``None`` for the server's default.
    """

    def __init__(self, seed: int, pair_tokens: str, model: str | None) -> None:
        self._seed = seed
        self._pair_tokens = pair_tokens
        self._random = random.Random(seed)
        traffic = Traffic(seed)
        self._queries = [json.dumps(traffic.query()).encode() for _ in range(POOL)]
        self._model = b"" if model is None else b',"model":' + json.dumps(model).encode()
        self._pools: dict[str, list[bytes]] = {}

    def body(self, documents: int, tier: str | None = None, pair_tokens: float = 0.0) -> bytes:
        """Return one request.

        Args:
            tier: Its service tier; ``None`` for the server's default.
            pair_tokens: The length of all its pairs; 0 for lengths from the distribution.
        """
        pool = self._pool(f"{pair_tokens:g}" if pair_tokens else self._pair_tokens)
        first = self._random.randrange(len(pool))
        chosen = pool[first : first + documents]
        while len(chosen) < documents:
            chosen += pool[: documents - len(chosen)]
        query = self._random.choice(self._queries)
        tail = b"" if tier is None else b',"service_tier":' + json.dumps(tier).encode()
        return b'{"query":%b,"documents":[%b]%b%b}' % (query, b",".join(chosen), self._model, tail)

    def prepare(self, pair_tokens: float) -> None:
        """Make the texts for pairs of this length, which takes a moment."""
        self._pool(f"{pair_tokens:g}" if pair_tokens else self._pair_tokens)

    def _pool(self, pair_tokens: str) -> list[bytes]:
        if pair_tokens not in self._pools:
            traffic = Traffic(self._seed, lengths(pair_tokens))
            self._pools[pair_tokens] = [
                json.dumps(traffic.document()).encode() for _ in range(POOL)
            ]
        return self._pools[pair_tokens]
