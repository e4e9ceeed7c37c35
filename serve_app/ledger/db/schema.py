"""Migration of a database to the schema of this version. Concurrent migrations are safe."""

import random
import time
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from serve_app.domain.units import Seconds
from serve_app.ledger.db.advisory_locks import AdvisoryLock, lock
from serve_app.ledger.db.engines import open_reader, open_writer, opened, parse_url
from serve_app.ledger.db.failures import database_failures
from serve_app.private_files import close_to_others, private_file, private_folder

MIGRATE_TIMEOUT_S = Seconds(30.0)
MIGRATIONS = Path(__file__).parents[1] / "migrations"
MAKE_ONE = "start a service or run `rerank-serve ledger migrate` to create the tables"
UPDATE_IT = "start a service of this version or run `rerank-serve ledger migrate` to update them"

WAL_TIMEOUT_S = Seconds(1.0)
WAL_ATTEMPTS_MAX = 100


def migrate(database_url: str, timeout_s: Seconds = MIGRATE_TIMEOUT_S) -> None:
    """Create or update the ledger's tables in one transaction.

    If the schema is up to date, this neither waits for writers nor blocks them. The files of a
    SQLite database become readable by their owner only.

    Raises: LedgerUnavailable, also if the schema is newer; OSError if creating the file failed;
    ValueError if the URL is not supported.
    """
    url = parse_url(database_url)
    with database_failures("schema: ", CommandError):
        if url.get_backend_name() == "sqlite":
            _make_private(Path(str(url.database)))
            _write_ahead(database_url)
        _upgrade(database_url, timeout_s)


def require(database_url: str, timeout_s: Seconds) -> None:
    """Check that the database is a ledger with the schema of this version.

    Raises: LedgerUnavailable; ValueError if the schema is missing or has another version, or the
    URL is not supported.
    """
    url = parse_url(database_url)
    if url.get_backend_name() == "sqlite" and not Path(str(url.database)).is_file():
        raise ValueError(
            f"the ledger {url.database} does not exist. Select a ledger with RERANK_DATABASE_URL or"
            f" --database-url, or {MAKE_ONE}"
        )
    newest, *older = _revisions(_config())
    with database_failures("schema: ", CommandError):
        found = _current(database_url, timeout_s)
    if found is None:
        raise ValueError(f"{url!r} has no ledger tables; {MAKE_ONE}")
    if found in older:
        raise ValueError(f"{url!r} has the tables of an older version ({found}); {UPDATE_IT}")
    if found != newest:
        raise ValueError(f"{url!r} belongs to a newer version than this one ({found})")


def _make_private(database: Path) -> None:
    """Close the database to others. SQLite copies its mode to its other files."""
    if not database.parent.exists():
        private_folder(database.parent)
    private_file(database)
    for suffix in ("-wal", "-shm", "-journal"):
        close_to_others(database.with_name(database.name + suffix))


def _write_ahead(database_url: str) -> None:
    """Switch a SQLite file to write-ahead logging permanently.

    The switch needs exclusive access and does not always wait for the lock, so it is retried.
    """
    with opened(open_reader(database_url, WAL_TIMEOUT_S, connections=1)) as engine:
        for attempt in range(WAL_ATTEMPTS_MAX):
            try:
                with engine.connect() as connection:
                    connection.exec_driver_sql("PRAGMA journal_mode = WAL")
                return
            except OperationalError:
                if attempt == WAL_ATTEMPTS_MAX - 1:
                    raise
                time.sleep(random.uniform(0.005, 0.05))  # noqa: S311 - not a secret


def _config() -> Config:
    config = Config()
    # Alembic's settings interpolate '%'.
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config


def _revisions(config: Config) -> list[str]:
    return [each.revision for each in ScriptDirectory.from_config(config).walk_revisions()]


def _upgrade(database_url: str, timeout_s: Seconds) -> None:
    config = _config()
    newest, *older = _revisions(config)
    found = _current(database_url, timeout_s)
    if found == newest:
        return
    if found is not None and found not in older:
        raise CommandError(f"the database belongs to a newer version than this one ({found})")
    with (
        opened(open_writer(database_url, timeout_s)) as engine,
        engine.begin() as connection,
    ):
        lock(connection, AdvisoryLock.MIGRATION)
        if _revision(connection) != newest:  # No other process has migrated it meanwhile.
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


def _current(database_url: str, timeout_s: Seconds) -> str | None:
    with (
        opened(open_reader(database_url, timeout_s, connections=1)) as engine,
        engine.connect() as connection,
    ):
        return _revision(connection)


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()
