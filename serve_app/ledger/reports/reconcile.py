"""Consistency check of balances, reservations and the charges of one day.

The connection must see one snapshot of the ledger.
"""

from dataclasses import dataclass, field

from sqlalchemy import Connection, and_, func, or_, select

from serve_app.domain.units import Moment
from serve_app.ledger.db.tables import IS_COMMITTED, IS_SETTLED, PENDING, charges, reservations
from serve_app.ledger.money.calendar import MILLISECONDS_PER_DAY
from serve_app.ledger.money.reservation import State
from serve_app.ledger.reports.balances import balances
from serve_app.ledger.writer.retention import RESERVATIONS_KEPT_MS

OVERDUE_MS = 60_000
"""Tolerance for overdue reservations, which a gateway expires every few seconds."""

CLOCKS_DIFFER_MS = 3_600_000
"""Generous tolerance for clock differences between machines."""

SAME = ("tenant_id", "key_id", "model", "documents", "tokens", "revision")
"""Columns in which a charge equals its reservation, besides the amount."""


@dataclass(slots=True)
class Findings:
    """Numbers of checked objects, and one line for each difference."""

    counts: dict[str, int] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)

    def count(self, what: str, number: int = 1) -> None:
        self.counts[what] = self.counts.get(what, 0) + number


def check_books(connection: Connection, day: Moment, now: Moment) -> Findings:
    """``day`` is the first moment of the day.

    Reservations of charges older than one day may be deleted.
    """
    findings = Findings()
    for balance in balances(connection):
        findings.count("balances")
        if not balance.adds_up:
            findings.differences.append(
                f"tenant {balance.tenant}: granted {balance.granted}, but available"
                f" {balance.available} + pending {balance.pending} + charged {balance.charged}"
            )
    findings.counts["reservations pending"] = 0
    pending = select(reservations.c.id, reservations.c.expires_at)
    for row in connection.execute(pending.where(reservations.c.state == PENDING)):
        findings.count("reservations pending")
        if row.expires_at + OVERDUE_MS < now:
            findings.differences.append(
                f"request {row.id}: still pending {(now - row.expires_at) // 1_000} s after it"
                " expired"
            )
    _check_reservations(connection, day, findings)
    _check_charges(connection, day, now, findings)
    return findings


def _check_reservations(connection: Connection, day: Moment, findings: Findings) -> None:
    same = and_(*(charges.c[name] == reservations.c[name] for name in SAME))
    query = (
        select(reservations.c.id, reservations.c.charged, charges.c.amount, same.label("same"))
        .outerjoin_from(reservations, charges, charges.c.request_id == reservations.c.id)
        .where(
            IS_SETTLED,
            IS_COMMITTED,
            reservations.c.settled_at >= day,
            reservations.c.settled_at < day + MILLISECONDS_PER_DAY,
        )
        .order_by(reservations.c.settled_at, reservations.c.id)
    )
    findings.counts["committed reservations of the day"] = 0
    for row in connection.execute(query):
        findings.count("committed reservations of the day")
        if row.amount is None:
            problem = f"committed for {row.charged}, but there is no charge"
        elif row.amount != row.charged:
            problem = f"committed for {row.charged}, but charged {row.amount}"
        elif not row.same:
            problem = f"the reservation and the charge differ in one of {', '.join(SAME)}"
        else:
            continue
        findings.differences.append(f"request {row.id}: {problem}")


def _check_charges(connection: Connection, day: Moment, now: Moment, findings: Findings) -> None:
    of_day = and_(charges.c.charged_at >= day, charges.c.charged_at < day + MILLISECONDS_PER_DAY)
    kept = charges.c.charged_at > now - RESERVATIONS_KEPT_MS + CLOCKS_DIFFER_MS
    query = (
        select(charges.c.request_id, charges.c.amount, reservations.c.state)
        .outerjoin_from(charges, reservations, reservations.c.id == charges.c.request_id)
        .where(
            of_day,
            or_(
                reservations.c.state != State.COMMITTED.value,
                and_(reservations.c.state.is_(None), kept),
            ),
        )
        .order_by(charges.c.charged_at, charges.c.request_id)
    )
    number = connection.scalar(select(func.count()).select_from(charges).where(of_day))
    findings.count("charges of the day", number or 0)
    for row in connection.execute(query):
        stands = (
            "there is no reservation" if row.state is None else f"its reservation is {row.state}"
        )
        findings.differences.append(f"request {row.request_id}: charged {row.amount}, but {stands}")
