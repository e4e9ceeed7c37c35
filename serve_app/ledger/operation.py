"""One write on its way to the database, seen from both sides: who wants it, and the writer."""

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from serve_app.domain.errors import LedgerUnavailable, RerankError
from serve_app.domain.units import KeyId, RequestId, TenantId
from serve_app.ledger.books import Books
from serve_app.ledger.single_charge import SingleCharge


@dataclass(slots=True, eq=False)
class Operation:
    """What to do to the books, and whom to tell."""

    apply: Callable[[Books], object]
    request_id: RequestId
    tenant: TenantId | None = None
    """Whose account it touches; ``None`` means that of the reservation ``request_id``."""

    key_id: KeyId | None = None
    """The key that it uses, if it uses one."""

    attempts_left: int | None = 1
    """How often the database may fail it; ``None``: until it is written. Tried again at ticks, so
    more than one is only for what nobody waits for."""

    is_new: bool = False
    """Nobody can know ``request_id`` yet, so that there is nothing to read under it. Where there is
    all the same, the database refuses the whole group, and this one is tried alone."""

    forgettable: bool = False
    """A crash of the database may undo it: nothing that anybody was told depends on it."""

    single_charge: SingleCharge | None = None
    """The same as ``apply``, quicker, where it is the only one of its group; tried first."""

    future: Future[Any] = field(default_factory=Future)
    _begun: bool = False

    def begin(self) -> bool:
        """For the writer: False if it was cancelled. From here on it cannot be."""
        self._begun = True  # First: whoever then fails to cancel it must know that it began.
        return self.future.set_running_or_notify_cancel()

    def prevent(self) -> bool:
        """Cancel it if possible; whether it surely has left no trace and never will."""
        return self.future.cancel() or not self._begun

    def outcome(self, books: Books) -> object:
        """Apply it; a refusal is an outcome, and anything else that is raised poisons the group."""
        try:
            return self.apply(books)
        except RerankError as refusal:
            return refusal

    def resolve(self, outcome: object) -> None:
        """Tell the caller, once that is durable."""
        if isinstance(outcome, RerankError):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)

    def fail(self, error: LedgerUnavailable) -> None:
        """Tell the caller, unless it went away or was told already."""
        future = self.future
        if not future.done() and (future.running() or future.set_running_or_notify_cancel()):
            future.set_exception(error)

    def may_be_tried_again(self) -> bool:
        """Count an attempt that the database failed; if there is another, nobody was told."""
        if self.attempts_left is not None:
            self.attempts_left -= 1
            if self.attempts_left <= 0:
                return False
        self.future = Future()
        return True
