"""Convert database errors to `LedgerUnavailable`."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import SQLAlchemyError

from serve_app.domain.errors import LedgerUnavailable


@contextmanager
def database_failures(prefix: str = "", other: type[Exception] = SQLAlchemyError) -> Iterator[None]:
    """Raise LedgerUnavailable for database errors of the block, and those of the type ``other``."""
    try:
        yield
    except (SQLAlchemyError, other) as error:
        raise LedgerUnavailable(f"{prefix}{reason(error)}") from error


def reason(error: BaseException) -> str:
    """Describe a database error for logs, without the statement and parameters."""
    origin = getattr(error, "orig", None) or error
    return f"{type(origin).__name__}: {origin}".strip()
