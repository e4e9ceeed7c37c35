"""A file system that tests can fill completely and empty again."""

import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

DISK_BYTES = 8 * 2**20


class SmallDisk:
    """A tmpfs mounted at ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self) -> None:
        """Leave no space, so that every write that needs a new block fails with ENOSPC."""
        with self._filler.open("ab", buffering=0) as filler:
            for size in (2**16, 2**12, 1):
                with suppress(OSError):
                    while filler.write(bytes(size)) == size:
                        pass

    def free(self) -> None:
        self._filler.unlink(missing_ok=True)


class LimitedFiles(SmallDisk):
    """A substitute where mounting is not permitted, based on the limit on file sizes.

    A full disk is a limit of one byte. Writes of this process beyond it fail with EFBIG.
    """

    def fill(self) -> None:
        """Fail all writes of this process beyond the first byte of a file."""
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))

    def free(self) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


@contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk]:
    """Mount a disk of `DISK_BYTES` at the new ``folder``, or yield a substitute."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=0700", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, check=False, capture_output=True).returncode == 0
    disk = SmallDisk(folder) if mounted else LimitedFiles(folder)
    try:
        yield disk
    finally:
        disk.free()
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
