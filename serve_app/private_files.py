"""Folders and files that only the user of this process can access.

Existing ones are repaired: the permissions of group and others are removed, those of the owner
stay. Files and folders that belong to another user or have the sticky bit, such as ``/tmp``, are
not changed.
"""

import os
import stat
from pathlib import Path


def private_folder(path: Path) -> None:
    """Create the folder ``path`` with mode 0700, or remove others' permissions if it exists.

    Missing parents get the default mode. Existing parents are not changed.

    Raises:
        OSError: Creating the folder fails, or ``path`` is not a folder.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    close_to_others(path)


def private_file(path: Path) -> None:
    """Create the empty file ``path`` with mode 0600, or close it to others if it exists.

    An existing file is never opened: closing it would drop this process's locks on it, on which
    SQLite relies.

    Raises:
        OSError: Creating the file fails.
    """
    target = path.resolve()  # A link may point to a file that does not exist yet.
    try:
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        close_to_others(target)


def close_to_others(path: Path) -> None:
    """Remove the permissions of group and others from ``path``, if it exists and is ours.

    Raises:
        OSError: The file system does not permit it.
    """
    try:
        found = path.stat()
        if found.st_uid == os.geteuid() and not found.st_mode & stat.S_ISVTX:
            private = stat.S_IMODE(found.st_mode) & 0o700
            if private != stat.S_IMODE(found.st_mode):
                path.chmod(private)
    except FileNotFoundError:
        return
