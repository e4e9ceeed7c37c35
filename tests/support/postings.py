"""Single ledger operations for tests, through `Books`."""

from sqlalchemy import Connection

from serve_app.domain.model import RateLimitState
from serve_app.domain.units import Credits, Moment, RequestId
from serve_app.ledger.money.reservation import Reservation
from serve_app.ledger.posting.books import Books
from serve_app.ledger.posting.rate_limits import NOT_LIMITED, Demand
from serve_app.ports import Usage


def reserve(
    connection: Connection, wanted: Reservation, demand: Demand = NOT_LIMITED
) -> tuple[RateLimitState, ...]:
    """See `Books.reserve`."""
    books = Books.open(connection, {wanted.tenant}, {wanted.request_id})
    reserved = books.reserve(wanted, demand)
    books.write()
    return reserved.rate_limits


def commit(
    connection: Connection, request_id: RequestId, amount: Credits, usage: Usage, now: Moment
) -> None:
    """See `Books.commit`."""
    books = Books.open(connection, (), {request_id})
    books.commit(request_id, amount, usage, now)
    books.write()


def void(connection: Connection, request_id: RequestId, usage: Usage, now: Moment) -> None:
    """See `Books.void`."""
    books = Books.open(connection, (), {request_id})
    books.void(request_id, usage, now)
    books.write()


def reverse(connection: Connection, request_id: RequestId, usage: Usage, now: Moment) -> None:
    """See `Books.reverse`."""
    books = Books.open(connection, (), {request_id})
    books.reverse(request_id, usage, now)
    books.write()
