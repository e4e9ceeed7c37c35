"""Folders and files that only the user of this process can access.

Existing ones lose the permissions of group and others, unless they belong to another user or have
the sticky bit, as ``/tmp`` has.
"""

import os
import stat
from pathlib import Path


def private_folder(path: Path) -> None:
    """Create the folder with mode 0700, or close it to others if it exists.

    Missing parents get the default mode. Raises: OSError.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    close_to_others(path)


def private_file(path: Path) -> None:
    """Create the empty file with mode 0600, or close it to others.

    An existing file is never opened: closing it would drop this process's locks, on which SQLite
    relies.

    Raises: OSError.
    """
    target = path.resolve()  # A link may point to a file that does not exist yet.
    try:
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        close_to_others(target)


def close_to_others(path: Path) -> None:
    """Remove the permissions of group and others from ``path``, if it exists and is ours.

    Raises: OSError.
    """
    try:
        found = path.stat()
        if found.st_uid == os.geteuid() and not found.st_mode & stat.S_ISVTX:
            private = stat.S_IMODE(found.st_mode) & 0o700
            if private != stat.S_IMODE(found.st_mode):
                path.chmod(private)
    except FileNotFoundError:
        return
