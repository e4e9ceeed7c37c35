"""Apply a group of operations in one transaction: read, apply each operation, write."""

from collections.abc import Collection, Sequence

from sqlalchemy import Connection

from serve_app.domain.units import RequestId
from serve_app.ledger.posting.books import Books
from serve_app.ledger.writer.operation import Operation


def apply(
    connection: Connection,
    group: Sequence[Operation],
    begun: list[Operation],
    *,
    events: bool,
) -> list[object]:
    """Apply the operations that are not cancelled once the locks are held; return their outcomes.

    Must run the first statements of the transaction. ``begun`` receives these operations before the
    first of them is applied.
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
    """Open the books. Requests in ``known`` may already have a reservation."""
    tenants = {each.tenant for each in group if each.tenant is not None}
    return Books.open(connection, tenants, known, events=events)
