"""Export something from a model's files once, and keep the result in a cache.

The cache may be deleted at any time. If it cannot be written, every process
exports for itself. See `docs/decisions/0018`.
"""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from serve_app.private_files import private_folder
from serve_app.telemetry.logs import get_logger

logger = get_logger(__name__)

EXPORTS = "engine"
"""Name of the cache's folder in ``var_dir``."""

Export = Callable[[Path, tuple[int, ...]], None]
"""Writes an export into a folder. A child process that does so inherits the file descriptors, which
hold the lock in case the child outlives this process."""


def digest(options: str, packages: Iterable[str], files: Iterable[tuple[str, Path]]) -> str:
    """Return a hash of options, versions of packages, and names and contents of files.

    A copy of a model's folder has the same hash, because paths do not count.
    """
    seen = hashlib.sha256(options.encode())
    seen.update(str([(name, version(name)) for name in packages]).encode())
    for name, path in files:
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256")
        seen.update(f"{name} {content.hexdigest()}\n".encode())
    return seen.hexdigest()[:32]


def files_below(root: Path, suffixes: frozenset[str]) -> list[tuple[str, Path]]:
    """Return names relative to ``root``, and paths."""
    return [
        (str(path.relative_to(root)), path)
        for path in sorted(root.rglob("*"))
        if path.suffix in suffixes and path.is_file()
    ]


@contextmanager
def exported(key: str, cache: Path | None, export: Export) -> Iterator[Path]:
    """Yield the folder with an export, from ``cache`` if possible.

    If the block raises, the folder is removed from the cache.

    Raises: what ``export`` raises.
    """
    entry = _entry(key, cache, export) if cache else None
    if entry:
        try:
            yield entry
        except Exception:
            shutil.rmtree(entry, ignore_errors=True)
            raise
    else:
        with TemporaryDirectory() as temporary:
            export(Path(temporary), ())
            yield Path(temporary)


def _entry(key: str, cache: Path, export: Export) -> Path | None:
    """Return the export's folder, or ``None`` if the cache cannot be used.

    Of several processes, only one exports.
    """
    entry = cache / key
    try:
        if not entry.is_dir():
            private_folder(cache)
            with (cache / f"{key}.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                _fill(entry, export, lock.fileno())
    except OSError as error:
        logger.warning("engine_cache_not_used", extra={"folder": str(cache), "reason": str(error)})
        return None
    return entry


def _fill(entry: Path, export: Export, lock: int) -> None:
    if not entry.is_dir():
        partial = entry.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        export(partial, (lock,))
        _write_back(partial)
        partial.rename(entry)


def _write_back(folder: Path) -> None:
    """Wait until the files are on the disk, so that a crash leaves no incomplete ones."""
    for path in (*folder.iterdir(), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
