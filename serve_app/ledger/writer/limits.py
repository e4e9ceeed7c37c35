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
    """Limits on queues, waiting times and transactions."""

    database_timeout_s: Seconds = DATABASE_TIMEOUT_S
    """Longest wait of an operation before it begins, and longest run time of a statement."""

    expiry_interval_s: Seconds = EXPIRY_INTERVAL_S

    stuck_after_s: Seconds = STUCK_AFTER_S
    """While a transaction takes longer than this, new requests are refused immediately."""

    probe_interval_s: Seconds = PROBE_INTERVAL_S

    operations_max: int = 4_096
    """Most waiting writes. Voids can use twice this limit; reversals are not limited."""

    group_operations_max: int = 256

    expired_per_transaction_max: int = 1_000

    charges_kept_days: int = CHARGES_KEPT_DAYS
    """Days for which charges stay single rows; see `retention`."""

    retired_per_transaction_max: int = 500
    """Most rows per retention step. Charges wait during a step."""

    settlement_attempts_max: int = 4
    """Most attempts for a void, one expiry interval apart; then its reservation expires."""

    reader_threads: int = 2
    reads_max: int = 256
    """Most reads that wait or run."""
