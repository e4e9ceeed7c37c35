"""Comparisons of live revisions with their canaries, kept for a week."""

from dataclasses import asdict

from sqlalchemy import Connection, bindparam, delete, insert, select

from serve_app.domain.canary import Comparison
from serve_app.domain.units import Moment
from serve_app.ledger.db.tables import shadow_comparisons as table

KEPT_DAYS = 7

_KEPT_MS = KEPT_DAYS * 24 * 3_600_000

_due = (
    select(table.c.request_id)
    .where(table.c.compared_at < bindparam("before"))
    .order_by(table.c.compared_at)
    .limit(bindparam("count"))
    .with_for_update(skip_locked=True)
)
_forget = delete(table).where(table.c.request_id.in_(_due))


def add(connection: Connection, comparison: Comparison) -> None:
    connection.execute(insert(table), asdict(comparison))


def forget(connection: Connection, now: Moment, count_max: int) -> int:
    """Delete comparisons older than a week, without waiting for locks."""
    return connection.execute(_forget, {"before": now - _KEPT_MS, "count": count_max}).rowcount
