"""Outcomes in bytes, which the ledger stores to answer repeats of their requests.

They are compressed JSON without any text of a request. A new field of `Outcome` needs a default, so
that earlier outcomes can be read.
"""

import zlib
from dataclasses import replace

from pydantic import TypeAdapter

from serve_app.domain.job import Job
from serve_app.domain.model import Outcome, RateLimitState
from serve_app.ports import StoredOutcome

FASTEST = 1

_OUTCOME = TypeAdapter(Outcome)


def to_store(job: Job, outcome: Outcome) -> StoredOutcome | None:
    if job.idempotency is None:
        return None
    json = _OUTCOME.dump_json(outcome, exclude={"rate_limits", "replayed"})
    return StoredOutcome(job.idempotency, zlib.compress(json, FASTEST))


def replayed(stored: bytes, rate_limits: tuple[RateLimitState, ...]) -> Outcome:
    """A repeat has its own ``rate_limits``."""
    outcome = _OUTCOME.validate_json(zlib.decompress(stored))
    return replace(outcome, rate_limits=rate_limits, replayed=True)
