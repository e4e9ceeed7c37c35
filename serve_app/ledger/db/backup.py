"""Online backup of a SQLite ledger."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from serve_app.domain.errors import LedgerUnavailable
from serve_app.domain.units import Seconds
from serve_app.ledger.db.engines import parse_url


def back_up(database_url: str, target: Path, timeout_s: Seconds) -> None:
    """Copy a snapshot of the ledger to ``target``, a new file, while writers continue.

    The file is named ``<target>.partial`` until it is complete and durable. Only its owner can read
    it.

    Raises: LedgerUnavailable; OSError, also if the file exists; ValueError if it is not SQLite.
    """
    url = parse_url(database_url)
    if url.get_backend_name() != "sqlite" or url.database is None:
        raise ValueError("only SQLite ledgers can be backed up here; for PostgreSQL use pg_dump")
    if target.exists():
        raise FileExistsError(f"the file '{target}' already exists")
    partial = target.with_name(f"{target.name}.partial")
    partial.unlink(missing_ok=True)
    partial.touch(mode=0o600)
    try:
        # Read-only, because a backup must not create an empty ledger.
        source = f"{Path(url.database).absolute().as_uri()}?mode=ro"
        with (
            closing(sqlite3.connect(source, timeout=timeout_s, uri=True)) as ledger,
            closing(sqlite3.connect(partial)) as copy,
        ):
            # In one step: in several, every write of another process would restart the copy.
            ledger.backup(copy, pages=-1)
            copy.execute("PRAGMA journal_mode = DELETE")  # Leaves a single file without a WAL.
    except sqlite3.Error as error:
        raise LedgerUnavailable(f"{type(error).__name__}: {error}") from error
    _make_durable(partial)
    os.link(partial, target)  # Unlike a rename, a link never replaces an existing file.
    partial.unlink()
    _make_durable(target.absolute().parent)


def _make_durable(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
