"""How commands reach the ledger: its database, who acts, and what went wrong in one line."""

import getpass
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import click

from serve_app.domain.clock import SystemClock
from serve_app.domain.errors import LedgerUnavailable
from serve_app.domain.units import Seconds, TenantId
from serve_app.ledger import accounts
from serve_app.ledger.admin_acts import Act
from serve_app.ledger.database import Connection, transaction
from serve_app.ledger.schema import require
from serve_app.settings import Settings

DATABASE_TIMEOUT_S = Seconds(10.0)
CLOCK = SystemClock()


def database_option(command: Callable[..., None]) -> Callable[..., None]:
    return click.option(
        "--database-url",
        envvar="RERANK_DATABASE_URL",
        help="SQLAlchemy URL of the ledger.  [default: what the settings say]",
    )(command)


@contextmanager
def open_books(
    database_url: str | None,
    begin: Callable[[str, Seconds], AbstractContextManager[Connection]] = transaction,
) -> Iterator[Connection]:
    """A transaction on a ledger that is there and up to date; what goes wrong becomes one line.

    A command that made what is missing would work on an empty ledger where its environment names
    the wrong one, and one that updated it would leave older gateways unable to start again.
    """
    url = database_url or settings().resolved_database_url
    with in_one_line():
        require(url, DATABASE_TIMEOUT_S)
    try:
        with begin(url, DATABASE_TIMEOUT_S) as connection:
            yield connection
    except LedgerUnavailable as error:
        raise click.ClickException(f"the database did not answer: {error.reason}") from None
    except accounts.AccountProblem as error:
        raise click.ClickException(str(error)) from None


@contextmanager
def in_one_line() -> Iterator[None]:
    """What keeps a ledger from being used at all, as click reports it."""
    try:
        yield
    except LedgerUnavailable as error:
        raise click.ClickException(f"the ledger cannot be used: {error.reason}") from None
    except (ValueError, OSError) as error:
        raise click.ClickException(" ".join(str(error).split())) from None


def settings() -> Settings:
    """As the environment says; commands know no Serve config file."""
    try:
        return Settings()
    except ValueError as error:
        raise click.ClickException(" ".join(str(error).split())) from None


def tenant_id(connection: Connection, name: str | None) -> TenantId | None:
    """Of the tenant with this name or id. Raises: AccountProblem."""
    return None if name is None else accounts.find_tenant(connection, name).id


def act() -> Act:
    """What is about to be done: now, by whoever is logged in."""
    try:
        who = getpass.getuser()
    except (KeyError, OSError):
        who = "unknown"  # A container may run as a user id without a name.
    return Act(who, CLOCK.moment())
