"""Queued writes, shared by their callers and the writer thread."""

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from serve_app.domain.errors import LedgerUnavailable, RerankError
from serve_app.domain.job import Idempotency
from serve_app.domain.units import KeyId, RequestId, TenantId
from serve_app.ledger.posting.books import Books


@dataclass(slots=True, eq=False)
class Operation:
    """A change of the books and the future of its result."""

    apply: Callable[[Books], object]
    request_id: RequestId
    tenant: TenantId | None = None
    """``None`` means the tenant of the reservation ``request_id``."""

    key_id: KeyId | None = None
    """The API key to record as used."""

    idempotency: Idempotency | None = None
    """The key to read, which needs ``tenant``."""

    attempts_left: int | None = 1
    """``None`` means unlimited. Retries run at ticks, so only operations without a waiting caller
    have more than one."""

    is_new: bool = False
    """Whether ``request_id`` is new, so that no reservation is read. If one exists nevertheless,
    the database rejects the group, and this operation is retried alone."""

    durable: bool = True
    """Whether its commit waits for the disk. If not, a database crash may undo it, so no result
    sent to a client may depend on it."""

    future: Future[Any] = field(default_factory=Future)
    _begun: bool = False

    def begin(self) -> bool:
        """Prevent cancellation; return false if it was cancelled before."""
        self._begun = True  # First, so that `prevent` sees it when its cancellation fails.
        return self.future.set_running_or_notify_cancel()

    def prevent(self) -> bool:
        """Try to cancel it; return whether it has and will have no effect."""
        return self.future.cancel() or not self._begun

    def outcome(self, books: Books) -> object:
        """Apply it and return its result or its rejection. Other exceptions fail the group."""
        try:
            return self.apply(books)
        except RerankError as refusal:
            return refusal

    def resolve(self, outcome: object) -> None:
        """Set the caller's result, after the transaction has committed."""
        if isinstance(outcome, RerankError):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)

    def fail(self, error: LedgerUnavailable) -> None:
        """Set the caller's error, unless it was cancelled or already has a result."""
        future = self.future
        if not future.done() and (future.running() or future.set_running_or_notify_cancel()):
            future.set_exception(error)

    def may_be_tried_again(self) -> bool:
        """Count a failed attempt. If another one is left, reset the future and return true."""
        if self.attempts_left is not None:
            self.attempts_left -= 1
            if self.attempts_left <= 0:
                return False
        self.future = Future()
        return True


def apply_group(
    connection: Connection,
    group: Sequence[Operation],
    begun: list[Operation],
    *,
    events: bool,
) -> list[object]:
    """Apply the operations that are not cancelled once the locks are held; return their outcomes.

    ``begun`` receives them before they are applied. Must run the first statements of the
    transaction.
    """
    known = {each.request_id for each in group if not each.is_new}
    books = _open(connection, group, known, events=events)
    begun += [each for each in group if each.begin()]
    outcomes = [each.outcome(books) for each in begun]
    books.write()
    return outcomes


def apply_again(connection: Connection, operation: Operation, *, events: bool) -> object:
    """Apply an operation that has begun and may already be written."""
    books = _open(connection, [operation], {operation.request_id}, events=events)
    outcome = operation.outcome(books)
    books.write()
    return outcome


def _open(
    connection: Connection,
    group: Sequence[Operation],
    known: Collection[RequestId],
    *,
    events: bool,
) -> Books:
    tenants = {each.tenant for each in group if each.tenant is not None}
    books = Books.open(connection, tenants, known, events=events)
    keys = {
        (each.tenant, each.idempotency.key_sha256)
        for each in group
        if each.tenant is not None and each.idempotency is not None
    }
    if keys:
        books.read_keys(keys)
    return books
