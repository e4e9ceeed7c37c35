"""Limits of the ledger in one gateway."""

from dataclasses import dataclass

from serve_app.domain.units import Seconds

DATABASE_TIMEOUT_S = Seconds(5.0)
EXPIRY_INTERVAL_S = Seconds(5.0)
STUCK_AFTER_S = Seconds(1.0)
PROBE_INTERVAL_S = Seconds(0.5)
CHARGES_KEPT_DAYS = 90


@dataclass(frozen=True, slots=True)
class LedgerLimits:
    """Limits on queue sizes, waiting times and transaction sizes."""

    database_timeout_s: Seconds = DATABASE_TIMEOUT_S
    """Longest wait of an operation before it begins, and longest run time of a statement."""

    expiry_interval_s: Seconds = EXPIRY_INTERVAL_S
    """Interval at which overdue reservations are expired."""

    stuck_after_s: Seconds = STUCK_AFTER_S
    """While a transaction takes longer than this, new requests are refused immediately."""

    probe_interval_s: Seconds = PROBE_INTERVAL_S
    """Interval between tests of a failing database."""

    operations_max: int = 4_096
    """Most waiting writes. Voids can use twice this limit; reversals are not limited."""

    group_operations_max: int = 256
    """Most writes in one transaction."""

    expired_per_transaction_max: int = 1_000

    charges_kept_days: int = CHARGES_KEPT_DAYS
    """Days for which charges stay single rows; older ones are summed up. See `retention`."""

    retired_per_transaction_max: int = 500
    """Most rows per retention step. Charges wait during a step."""

    settlement_attempts_max: int = 4
    """Most attempts for a void, one expiry interval apart; afterwards its reservation expires. A
    reversal is retried until it is written, because a charge does not expire."""

    reader_threads: int = 2
    reads_max: int = 256
    """Most reads that wait or run."""
