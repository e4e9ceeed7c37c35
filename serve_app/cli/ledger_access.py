"""Ledger access of the commands, with errors of one line."""

import getpass
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import click

from serve_app.domain.clock import SystemClock
from serve_app.domain.errors import LedgerUnavailable
from serve_app.domain.units import Seconds, TenantId
from serve_app.ledger.accounts import tenant_accounts
from serve_app.ledger.db.audit_log import AuditContext
from serve_app.ledger.db.engines import Connection, reading, transaction
from serve_app.ledger.db.schema import require
from serve_app.settings.gateway import Settings

DATABASE_TIMEOUT_S = Seconds(10.0)
REPORT_TIMEOUT_S = Seconds(600.0)
"""Timeout of one SQL statement of a report, which may read millions of rows."""

CLOCK = SystemClock()


def database_option(command: Callable[..., None]) -> Callable[..., None]:
    return click.option(
        "--database-url",
        envvar="RERANK_DATABASE_URL",
        help="SQLAlchemy URL of the ledger.  [default: from the settings]",
    )(command)


@contextmanager
def open_books(
    database_url: str | None,
    begin: Callable[[str, Seconds], AbstractContextManager[Connection]] = transaction,
) -> Iterator[Connection]:
    """Open a transaction on an existing ledger.

    It is not created, which would hide a wrong URL, and not updated, because older gateways cannot
    start on an updated ledger.

    Raises: ClickException.
    """
    url = database_url or settings().resolved_database_url
    with in_one_line():
        require(url, DATABASE_TIMEOUT_S)
    try:
        with begin(url, DATABASE_TIMEOUT_S) as connection:
            yield connection
    except LedgerUnavailable as error:
        raise click.ClickException(f"the database did not answer: {error.reason}") from None
    except tenant_accounts.AccountProblem as error:
        raise click.ClickException(str(error)) from None


def reading_long(database_url: str, _timeout_s: Seconds) -> AbstractContextManager[Connection]:
    return reading(database_url, REPORT_TIMEOUT_S)


@contextmanager
def in_one_line() -> Iterator[None]:
    """Convert ledger errors to a `ClickException` of one line."""
    try:
        yield
    except LedgerUnavailable as error:
        raise click.ClickException(f"the ledger is unusable: {error.reason}") from None
    except (ValueError, OSError) as error:
        raise click.ClickException(" ".join(str(error).split())) from None


def settings() -> Settings:
    """Return the settings from the environment. No Serve config file is read."""
    try:
        return Settings()
    except ValueError as error:
        raise click.ClickException(" ".join(str(error).split())) from None


def tenant_id(connection: Connection, name: str | None) -> TenantId | None:
    """Find a tenant by name or id. Raises: AccountProblem."""
    return None if name is None else tenant_accounts.find_tenant(connection, name).id


def audit_context() -> AuditContext:
    try:
        who = getpass.getuser()
    except (KeyError, OSError):
        who = "unknown"  # A container's user id may have no name.
    return AuditContext(who, CLOCK.moment())
