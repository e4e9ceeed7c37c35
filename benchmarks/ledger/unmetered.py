"""A ledger without charges, to measure the cost of the real one."""

from serve_app.domain.model import Caller
from serve_app.domain.units import Credits, RequestId
from serve_app.ledger.sql_ledger import SqlLedger
from serve_app.ports import Quote, Reserved, StoredOutcome, Usage


class UnmeteredLedger(SqlLedger):
    """Finds keys in the database, but has no limit, no credit and no charge."""

    async def reserve(
        self,
        caller: Caller,  # noqa: ARG002 - required by the port
        quote: Quote,  # noqa: ARG002 - required by the port
    ) -> Reserved:
        """Accept every request."""
        return Reserved()

    async def commit(
        self,
        request_id: RequestId,
        amount: Credits,
        usage: Usage,
        stored: StoredOutcome | None = None,
    ) -> None:
        """Do nothing."""

    def void(self, request_id: RequestId, usage: Usage) -> None:
        """Do nothing."""
