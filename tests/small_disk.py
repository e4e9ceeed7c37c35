"""A real file system that can be filled to its last byte and emptied again."""

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
        """Leave no space: afterwards every write that needs a new block fails with ENOSPC."""
        with self._filler.open("ab", buffering=0) as filler:
            for size in (2**16, 2**12, 1):
                with suppress(OSError):
                    while filler.write(bytes(size)) == size:
                        pass

    def free(self) -> None:
        """Give the space back."""
        self._filler.unlink(missing_ok=True)


class LimitedFiles(SmallDisk):
    """A stand-in where mounting is not permitted: the kernel's limit on the size of files.

    A full disk is the limit of one byte, above which every write of this process fails with EFBIG.
    """

    def fill(self) -> None:
        """Let no file of this process grow beyond its first byte."""
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))

    def free(self) -> None:
        """Lift the limit."""
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


@contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk]:
    """A disk of `DISK_BYTES` at the new ``folder``."""
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
