"""Seeded random requests for load tests, with the text lengths of MS MARCO passages.

On judged passage collections, query-passage pairs have 67 tokens on average: 5 % have fewer than
37, the median is 62, and 95 % have fewer than 114. Document lengths are log-normal with that median
and 95th percentile, minus the query and three special tokens, clipped to 20..400 tokens. Words are
drawn from a fixed list by Zipf's law. A word takes 1.01 tokens on average in BERT's WordPiece, as
`tests/unit/loadtests/test_traffic.py` checks with the embedded model's tokenizer.
"""

import math
import random
from dataclasses import dataclass
from itertools import accumulate

TOKENS_PER_WORD = 1.01
QUERY_WORDS = (3, 10)
SPECIAL_TOKENS = 3

PAIR_TOKENS_MEDIAN = 62
PAIR_TOKENS_95 = 114
QUERY_TOKENS_MEAN = 6.5 * TOKENS_PER_WORD
DOCUMENT_TOKENS_MEDIAN = PAIR_TOKENS_MEDIAN - QUERY_TOKENS_MEAN - SPECIAL_TOKENS
DOCUMENT_TOKENS_95 = PAIR_TOKENS_95 - QUERY_TOKENS_MEAN - SPECIAL_TOKENS
NORMAL_95 = 1.6449
SIGMA = math.log(DOCUMENT_TOKENS_95 / DOCUMENT_TOKENS_MEDIAN) / NORMAL_95
DOCUMENT_TOKENS_RANGE = (20, 400)

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


@dataclass(frozen=True, slots=True)
class Request:
    """The texts of one rerank request."""

    query: str
    documents: list[str]


class Traffic:
    """An endless, repeatable stream of requests."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def request(self, documents: int) -> Request:
        query = self._words(self._random.randint(*QUERY_WORDS))
        return Request(query, [self._document() for _ in range(documents)])

    def _document(self) -> str:
        tokens = self._random.lognormvariate(math.log(DOCUMENT_TOKENS_MEDIAN), SIGMA)
        low, high = DOCUMENT_TOKENS_RANGE
        return self._words(round(min(max(tokens, low), high) / TOKENS_PER_WORD))

    def _words(self, count: int) -> str:
        return " ".join(self._random.choices(WORDS, cum_weights=CUMULATIVE_WEIGHTS, k=count))
