"""The sums of every usage report."""

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class UsageSums:
    """Sums of computed and charged work. Documents and tokens include work without a charge."""

    requests: int
    requests_not_charged: int
    """Requests that ended without a response, because the client disconnected or they failed."""

    documents: int
    documents_not_charged: int
    tokens: int
    charged: int

    def counts(self) -> dict[str, int]:
        """Return the sums by name, without the charged amount."""
        return {name: getattr(self, name) for name in USAGE_COUNTS}


USAGE_SUMS = tuple(field.name for field in fields(UsageSums))
USAGE_COUNTS = USAGE_SUMS[:-1]
