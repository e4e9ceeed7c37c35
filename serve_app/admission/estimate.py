"""Estimates of a job's size before it is tokenized."""

from serve_app.domain import windows
from serve_app.domain.job import Job
from serve_app.domain.model import Overflow
from serve_app.domain.units import Tokens

ASCII_CHARACTERS_PER_TOKEN = 4
"""For English text with BERT's WordPiece."""

BYTES_PER_TOKEN = 3
"""For other text, in UTF-8. A Chinese character is one token and three bytes."""

SMALL_TOKENS_MAX = 8_192
"""About a hundred passages, which take a few milliseconds to tokenize."""

SMALL_CHARACTERS_MAX = 200_000
"""Characters of a small job, each query counted once: at worst 0.2 s to tokenize."""


def estimate_tokens(job: Job, pair_tokens_max: int) -> Tokens:
    """Return an estimate, which is never 0."""
    queries = {query: _estimate(query) for query in job.queries}
    if job.overflow is not Overflow.CHUNK:
        pairs = [queries[query] + _estimate(document) for query, document in job.pairs]
        return Tokens(sum([min(pair_tokens_max, pair) for pair in pairs]))
    parts = [(queries[query], _estimate(document)) for query, document in job.pairs]
    tokens = sum(
        windows.count(document, max(1, pair_tokens_max - query))
        * min(pair_tokens_max, query + document)
        for query, document in parts
    )
    return Tokens(min(tokens, job.windows_max * pair_tokens_max))


def _estimate(text: str) -> int:
    if text.isascii():  # Python stores whether a string is ASCII, so this reads no text.
        return len(text) // ASCII_CHARACTERS_PER_TOKEN + 1
    return len(text.encode()) // BYTES_PER_TOKEN + 1


def is_small(job: Job, tokens: Tokens) -> bool:
    """Return whether ``job``, estimated at ``tokens``, is cheap to tokenize.

    Characters count too, because the tokenizer may read more of a text than the model does.
    """
    if tokens > SMALL_TOKENS_MAX:
        return False
    characters = sum(map(len, job.queries)) + sum(len(pair.document) for pair in job.pairs)
    return characters <= SMALL_CHARACTERS_MAX
