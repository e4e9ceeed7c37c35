"""Texts to score, as requests, jobs and portions. It imports no engine."""

from collections.abc import Sequence

from loadtests.traffic import WORDS, Request
from serve_app.dispatch.portions import CutPortion, cut
from serve_app.domain.job import Job, pairs_of
from serve_app.domain.model import Truncation
from serve_app.domain.units import Instant, ModelId, RequestId, Seconds, Tokens
from serve_app.ports import Engine, Tokenizer

QUERY_WORDS = 4

Prepared = list[tuple[int, CutPortion]]
"""Portions of several requests, each with the number of its request."""


def of_length(tokens: int, documents: int) -> Request:
    """Return pairs of exactly ``tokens`` tokens: each of these words is one token."""
    words = WORDS[: len(WORDS) // 2]
    document_words = tokens - 3 - QUERY_WORDS
    texts = [
        " ".join(words[(start + word) % len(words)] for word in range(document_words))
        for start in range(documents)
    ]
    return Request(" ".join(words[:QUERY_WORDS]), texts)


def prepared(tokenizer: Tokenizer, requests: Sequence[Request], portion_tokens: int) -> Prepared:
    """Return the requests' portions, of at most ``portion_tokens`` each."""
    return [
        (number, each)
        for number, request in enumerate(requests)
        for each in cut(RequestId("r"), tokenizer.tokenize(job(request)), Tokens(portion_tokens))
    ]


def scored(
    engine: Engine, portions: Prepared, portion_tokens: int, batch_tokens: int
) -> list[list[float]]:
    """Return each portion's logits, scored in batches of as many portions as fit."""
    per_batch = max(1, batch_tokens // portion_tokens)
    return [
        answer
        for start in range(0, len(portions), per_batch)
        for answer in engine.score(
            [each.portion() for _, each in portions[start : start + per_batch]]
        )
    ]


def job(request: Request) -> Job:
    """Return the request as a job, as in the pipeline."""
    return Job(
        RequestId("benchmark"),
        ModelId("measured"),
        pairs_of(request.query, request.documents),
        None,
        Truncation.ONLY_DOCUMENT,
        Seconds(0),
        Instant(0),
    )


def text_pairs(requests: Sequence[Request]) -> list[tuple[str, str]]:
    return [(request.query, document) for request in requests for document in request.documents]
