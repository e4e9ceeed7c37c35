"""A group of operations inside its transaction: read what they need, apply each, write all."""

from collections.abc import Collection, Sequence

from sqlalchemy import Connection

from serve_app.domain.units import RequestId
from serve_app.ledger.books import Books
from serve_app.ledger.operation import Operation


def apply(
    connection: Connection,
    group: Sequence[Operation],
    begun: list[Operation],
    *,
    events: bool,
) -> list[object]:
    """The outcomes of those that nobody had cancelled when their locks were held; these are added
    to ``begun`` before anything else can fail.

    Must be the transaction's first statements. ``events``: tell the outbox.
    """
    single = group[0].single_charge if len(group) == 1 else None
    if single is not None and single.write(connection, events=events):
        begun += [each for each in group if each.begin()]
        if not begun:
            connection.rollback()
        return [None for _ in begun]
    known = {each.request_id for each in group if not each.is_new}
    books = _open(connection, group, known, events=events)
    begun += [each for each in group if each.begin()]
    outcomes = [each.outcome(books) for each in begun]
    books.write()
    return outcomes


def apply_again(connection: Connection, operation: Operation, *, events: bool) -> object:
    """The outcome of one that has begun, and may have been written before."""
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
    """``known``: requests that may have a reservation already."""
    tenants = {each.tenant for each in group if each.tenant is not None}
    return Books.open(connection, tenants, known, events=events)
