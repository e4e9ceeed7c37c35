"""Export models for OpenVINO once, and keep the files in a cache.

An export imports torch and transformers and traces the model, which takes 5 to 10 s and 700 MB. A
child process does that, so that a scorer has neither of them in its memory. With the files in the
cache, a scorer needs a second. See `docs/decisions/0018`.

The cache has a folder per `Export`, named after a hash of everything the files depend on. It may be
deleted at any time. Where it cannot be written, every scorer exports its model for itself.
"""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from serve_app.engine.child_process import ModuleCommand
from serve_app.engine.sources import ModelLoadError
from serve_app.private_files import private_folder
from serve_app.telemetry.logs import get_logger

logger = get_logger(__name__)

PACKAGES = ("numpy", "openvino", "safetensors", "tokenizers", "torch", "transformers")
"""Packages whose versions may change an export."""

SUFFIXES = frozenset({".json", ".model", ".py", ".safetensors", ".txt"})
"""Endings of the files that an export reads, in the model's folder and in this package."""

REFUSED = 3
"""Exit status of the child process for a ModelLoadError, with its message as the last line."""

TIMEOUT_S = 900


@dataclass(frozen=True, slots=True)
class Export:
    """What to export."""

    source: str
    folder: str
    precision: str
    pair_tokens_max: int | None

    def key(self) -> str:
        """Return a hash of everything that an export depends on."""
        digest = hashlib.sha256(json.dumps(asdict(self)).encode())
        digest.update(str([(name, version(name)) for name in PACKAGES]).encode())
        for root in (Path(__file__).parent, Path(self.folder)):
            for path in sorted(root.rglob("*")):
                if path.suffix in SUFFIXES and path.is_file():
                    with path.open("rb") as file:
                        content = hashlib.file_digest(file, "sha256")
                    digest.update(f"{path.relative_to(root)} {content.hexdigest()}\n".encode())
        return digest.hexdigest()[:32]


@contextmanager
def exported(wanted: Export, cache: Path | None) -> Iterator[Path]:
    """Yield the folder with the exported model, from ``cache`` if possible.

    If the block raises, the files are removed from the cache.

    Raises: ModelLoadError; any other error means that the model cannot be exported.
    """
    entry = _entry(wanted, cache) if cache else None
    if entry:
        try:
            yield entry
        except Exception:
            shutil.rmtree(entry, ignore_errors=True)
            raise
    else:
        with TemporaryDirectory() as temporary:
            _export(wanted, Path(temporary))
            yield Path(temporary)


def _entry(wanted: Export, cache: Path) -> Path | None:
    """Return the model's folder in the cache, or ``None`` if the cache cannot be used.

    Of several processes that need the same model, one exports it and the others wait.
    """
    key = wanted.key()
    entry = cache / key
    try:
        if not entry.is_dir():
            private_folder(cache)
            with (cache / f"{key}.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                _fill(entry, wanted, lock.fileno())
    except OSError as error:
        logger.warning("engine_cache_not_used", extra={"folder": str(cache), "reason": str(error)})
        return None
    return entry


def _fill(entry: Path, wanted: Export, lock: int) -> None:
    if not entry.is_dir():
        partial = entry.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        _export(wanted, partial, lock)
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


def _export(wanted: Export, out: Path, *inherited: int) -> None:
    """Export in a child process, unless torch is already loaded.

    The child also holds the ``inherited`` lock, in case it outlives this process.
    """
    if "torch" in sys.modules:
        from serve_app.engine.openvino_export import export  # noqa: PLC0415 - imports torch

        export(wanted, out)
        return
    command = ModuleCommand.of(
        "serve_app.engine.openvino_export", json.dumps(asdict(wanted)), str(out)
    )
    done = subprocess.run(  # noqa: S603 - our own module
        command.arguments,
        env=command.environment,
        pass_fds=inherited,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    if done.returncode:
        last_line = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise (ModelLoadError if done.returncode == REFUSED else RuntimeError)(last_line)
