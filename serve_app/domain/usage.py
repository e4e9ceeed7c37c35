"""The sums of usage reports, and their latencies."""

import math
from dataclasses import dataclass, fields

LATENCIES_PER_DECADE = 20


@dataclass(frozen=True, slots=True)
class UsageSums:
    """Documents and tokens include work without a charge."""

    requests: int
    requests_not_charged: int
    """Requests that failed or whose client disconnected."""

    documents: int
    documents_not_charged: int
    tokens: int
    charged: int

    def counts(self) -> dict[str, int]:
        """Return the sums without ``charged``."""
        return {name: getattr(self, name) for name in USAGE_COUNTS}


def rounded_latency_ms(latency_ms: int) -> int:
    """Round to one of 20 values per decade: 1, 2, ..., 100, 112, 126, 141, ...

    So the ledger can count the requests of each value. A latency changes by at most 7 % or 1 ms. A
    clock that was set back gives 0.
    """
    if latency_ms < 1:
        return 0
    step = round(LATENCIES_PER_DECADE * math.log10(latency_ms))
    return round(10 ** (step / LATENCIES_PER_DECADE))


USAGE_SUMS = tuple(field.name for field in fields(UsageSums))
USAGE_COUNTS = USAGE_SUMS[:-1]
