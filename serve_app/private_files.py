"""Folders and files that only the user of this process can read.

What exists already is repaired: permissions of group and others are taken away, those of the owner
stay. Nothing is changed that belongs to another user or, such as ``/tmp``, has the sticky bit.
"""

import os
import stat
from pathlib import Path


def private_folder(path: Path) -> None:
    """Make the folder ``path`` with mode 0700, or close it to others if it exists.

    Missing parents are made with the default mode; existing parents are left alone.

    Raises:
        OSError: The folder cannot be made, or ``path`` is something else.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    close_to_others(path)


def private_file(path: Path) -> None:
    """Make the empty file ``path`` with mode 0600, or close it to others if it exists.

    An existing file is never opened: closing it again would drop the locks that this process
    holds on it, and SQLite relies on those.

    Raises:
        OSError: The file cannot be made.
    """
    target = path.resolve()  # A link may point to a file that is still to be made.
    try:
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        close_to_others(target)


def close_to_others(path: Path) -> None:
    """Take the permissions of group and others away from ``path``, if it exists and is ours.

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
