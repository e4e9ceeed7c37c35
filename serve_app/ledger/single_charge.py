"""The charge of one request by itself: two statements instead of three, and no account is locked.

Without much traffic groups are of one, and most of what a client waits for is statements. A gateway
knows what it reserved. Where all of that is charged nothing goes back, so that only the reservation
changes, if it is still pending. Whatever else has become of it is for `books`.
"""

from dataclasses import dataclass

from sqlalchemy import Connection

from serve_app.domain.units import Moment
from serve_app.ledger import outbox
from serve_app.ledger.book_statements import CHARGE, SETTLE_WHOLE, charged_row, settled_row
from serve_app.ledger.rules import Reservation, State
from serve_app.ports import Usage


@dataclass(frozen=True, slots=True)
class SingleCharge:
    """Of all that was reserved."""

    reserved: Reservation
    usage: Usage
    now: Moment

    def write(self, connection: Connection, *, events: bool) -> bool:
        """Whether it is written; if not, nothing is. ``events``: tell the outbox."""
        known, amount = self.reserved, self.reserved.amount
        settled = settled_row(known.request_id, State.COMMITTED, amount, self.usage, self.now)
        if connection.execute(SETTLE_WHOLE, settled).rowcount != 1:
            return False
        charged = charged_row(known, amount, self.usage, self.now)
        connection.execute(CHARGE, charged)
        if events:
            outbox.tell_charges(connection, [charged])
        return True
