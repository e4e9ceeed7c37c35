"""A ledger that charges nobody, for one purpose: to measure what the real one costs."""

from serve_app.domain.model import Caller, RateLimitState
from serve_app.domain.units import Credits, RequestId
from serve_app.ports import Quote, Usage


class Unmetered:
    """Implements `serve_app.ports.Ledger` without a database: no limit, no credit, no charge."""

    async def reserve(
        self,
        caller: Caller,  # noqa: ARG002 - the port's
        quote: Quote,  # noqa: ARG002 - the port's
    ) -> tuple[RateLimitState, ...]:
        """Whatever is asked for."""
        return ()

    async def commit(self, request_id: RequestId, amount: Credits, usage: Usage) -> None:
        """Nothing to keep."""

    def void(self, request_id: RequestId, usage: Usage) -> None:
        """Nothing to give back."""
