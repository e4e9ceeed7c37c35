"""A process that reserves more from a ledger than its keys' limits allow, and prints each `Try`.

python -m tests.chaos.hammer DATABASE_URL TENANT UNTIL_S KEY_ID:WHAT:LIMIT ...
"""

import asyncio
import json
import sys
import time
import uuid
from random import Random

from serve_app.domain.clock import SystemClock
from serve_app.domain.errors import LedgerUnavailable, RateLimited
from serve_app.domain.model import Caller, RateLimits
from serve_app.domain.units import Credits, KeyId, ModelId, RequestId, Seconds, TenantId, Tokens
from serve_app.ledger.sql_ledger import SqlLedger
from serve_app.ports import Quote, Usage

TASKS = 2
DOCUMENTS_MAX = 9
TIMEOUT_S = MARGIN_S = Seconds(30)
PAUSE_S = (0.0, 0.2)


async def ask(ledger: SqlLedger, caller: Caller, documents: int) -> int:
    """Reserve and void a request; return the rest of the limit, which a void does not refill.

    Raises: RateLimited, LedgerUnavailable.
    """
    request_id = RequestId(uuid.uuid4().hex)
    quote = Quote(request_id, ModelId("tiny"), documents, Credits(documents), TIMEOUT_S)
    (state,) = (await ledger.reserve(caller, quote)).rate_limits
    ledger.void(request_id, Usage(documents, Tokens(documents)))
    return state.remaining


async def hammer(ledger: SqlLedger, caller: Caller, what: str, seconds: float) -> None:
    """Send requests for ``seconds``; ``what`` selects whether requests or documents count."""
    random = Random(uuid.uuid4().int)
    until_s = time.monotonic() + seconds
    while (before_s := time.monotonic()) < until_s:
        amount = 1 if what == "requests" else random.randint(1, DOCUMENTS_MAX)
        remaining: int | None = None
        try:
            remaining = await ask(ledger, caller, amount)
        except LedgerUnavailable:
            continue  # A busy machine; nothing was reserved.
        except RateLimited:
            pass
        tried = (before_s, time.monotonic(), amount, remaining)
        sys.stdout.write(json.dumps([what, *tried]) + "\n")
        await asyncio.sleep(random.uniform(*PAUSE_S))


def limited(tenant: str, key_id: str, what: str, limit: int) -> Caller:
    """Return a caller with one limit on its key."""
    limits = (
        RateLimits(requests_per_minute_max=limit)
        if what == "requests"
        else RateLimits(documents_per_minute_max=limit)
    )
    return Caller(TenantId(tenant), KeyId(key_id), frozenset({"rerank"}), None, key_limits=limits)


async def main() -> None:
    url, tenant, seconds, *keys = sys.argv[1:]
    ledger = SqlLedger(url, SystemClock(), MARGIN_S)
    ledger.start()
    tasks = []
    for key in keys:
        key_id, what, limit = key.split(":")
        caller = limited(tenant, key_id, what, int(limit))
        tasks += [hammer(ledger, caller, what, float(seconds)) for _ in range(TASKS)]
    await asyncio.gather(*tasks)
    ledger.close()


if __name__ == "__main__":
    asyncio.run(main())
