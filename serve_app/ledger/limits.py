"""Bounds of the ledger, for one gateway."""

from dataclasses import dataclass

from serve_app.domain.units import Seconds

DATABASE_TIMEOUT_S = Seconds(5.0)
EXPIRY_INTERVAL_S = Seconds(5.0)
STUCK_AFTER_S = Seconds(1.0)
PROBE_INTERVAL_S = Seconds(0.5)
CHARGES_KEPT_DAYS = 90


@dataclass(frozen=True, slots=True)
class LedgerLimits:
    """How much may wait, and how long."""

    database_timeout_s: Seconds = DATABASE_TIMEOUT_S
    """How long an operation may wait before it begins, and how long one statement may run."""

    expiry_interval_s: Seconds = EXPIRY_INTERVAL_S
    """How often overdue reservations are given back."""

    stuck_after_s: Seconds = STUCK_AFTER_S
    """A transaction that takes longer than this means that new requests are refused at once."""

    probe_interval_s: Seconds = PROBE_INTERVAL_S
    """How often a database that failed is asked whether it answers again."""

    operations_max: int = 4_096
    """Writes that may wait; more are refused, except voids up to twice this, and any reversal."""

    group_operations_max: int = 256
    """Writes that share a transaction."""

    expired_per_transaction_max: int = 1_000

    charges_kept_days: int = CHARGES_KEPT_DAYS
    """How many days of charges stay single rows; older ones are summed up. See `retention`."""

    retired_per_transaction_max: int = 500
    """Rows that one step of retention deletes or sums up, while payments wait."""

    settlement_attempts_max: int = 4
    """A void is tried this often, one expiry interval apart; then its reservation expires. A
    reversal is tried until it is written, because a charge does not expire."""

    reader_threads: int = 2
    reads_max: int = 256
    """Reads that may wait or run."""
