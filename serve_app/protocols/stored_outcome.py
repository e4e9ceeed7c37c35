"""Outcomes in bytes, which the ledger stores to answer repeats of their requests.

They are compressed JSON with the field names of `Outcome`, and contain no text of a request. A new
field needs a default, so that outcomes of an earlier version can be read.
"""

import zlib
from dataclasses import replace

from pydantic import TypeAdapter

from serve_app.domain.job import Job
from serve_app.domain.model import Outcome, RateLimitState
from serve_app.ports import StoredOutcome

FASTEST = 1
"""Compression level."""

_OUTCOME = TypeAdapter(Outcome)


def to_store(job: Job, outcome: Outcome) -> StoredOutcome | None:
    """Return what to store for repeats of ``job``: nothing if it has no idempotency key."""
    if job.idempotency is None:
        return None
    json = _OUTCOME.dump_json(outcome, exclude={"rate_limits", "replayed"})
    return StoredOutcome(job.idempotency, zlib.compress(json, FASTEST))


def replayed(stored: bytes, rate_limits: tuple[RateLimitState, ...]) -> Outcome:
    """Return the outcome of a repeat, which has its own ``rate_limits``."""
    outcome = _OUTCOME.validate_json(zlib.decompress(stored))
    return replace(outcome, rate_limits=rate_limits, replayed=True)
