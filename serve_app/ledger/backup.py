"""A copy of a SQLite ledger while it is written to. PostgreSQL has programs of its own for that."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from serve_app.domain.errors import LedgerUnavailable
from serve_app.domain.units import Seconds
from serve_app.ledger.database import parse_url


def back_up(database_url: str, target: Path, timeout_s: Seconds) -> None:
    """Write everything that was committed when this began to ``target``, a new file.

    Writers go on meanwhile. The file appears once it is complete and durable, readable by its owner
    only; until then it is called ``<target>.partial``.

    Raises:
        LedgerUnavailable: The database failed.
        OSError: The file could not be written, or there is one already.
        ValueError: This is no SQLite ledger.
    """
    url = parse_url(database_url)
    if url.get_backend_name() != "sqlite" or url.database is None:
        raise ValueError("this copies SQLite ledgers; for PostgreSQL use pg_dump")
    if target.exists():
        raise FileExistsError(f"there is already a file '{target}'")
    partial = target.with_name(f"{target.name}.partial")
    partial.unlink(missing_ok=True)
    partial.touch(mode=0o600)
    try:
        # The source as it is named: a copy must not make an empty ledger where there is none.
        source = f"{Path(url.database).absolute().as_uri()}?mode=ro"
        with (
            closing(sqlite3.connect(source, timeout=timeout_s, uri=True)) as ledger,
            closing(sqlite3.connect(partial)) as copy,
        ):
            # All pages in one go are one snapshot; in portions, each write would start it again.
            ledger.backup(copy, pages=-1)
            copy.execute("PRAGMA journal_mode = DELETE")  # One file, to be moved as one.
    except sqlite3.Error as error:
        raise LedgerUnavailable(f"{type(error).__name__}: {error}") from error
    _make_durable(partial)
    os.link(partial, target)  # Unlike a rename, it replaces nothing.
    partial.unlink()
    _make_durable(target.absolute().parent)


def _make_durable(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
