"""Folders and files become private, unless they belong to another user."""

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from serve_app.private_files import close_to_others, private_file, private_folder

SOMEBODY_ELSE = 12_345

WRITER = """
import sqlite3, sys
sqlite3.connect(sys.argv[1], timeout=0).execute("BEGIN IMMEDIATE")
"""


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@contextmanager
def umask(value: int) -> Iterator[None]:
    before = os.umask(value)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_new_folders_and_files_are_private_whatever_the_umask(tmp_path: Path, mask: int) -> None:
    with umask(mask):
        private_folder(tmp_path / "parent" / "folder")
        private_file(tmp_path / "file")

    assert mode(tmp_path / "parent" / "folder") == 0o700
    assert mode(tmp_path / "parent") == 0o777 & ~mask
    assert mode(tmp_path / "file") == 0o600
    assert (tmp_path / "file").read_bytes() == b""


@pytest.mark.parametrize(("before", "after"), [(0o755, 0o700), (0o2775, 0o700), (0o500, 0o500)])
def test_an_existing_folder_is_closed_and_its_parent_is_not(
    tmp_path: Path, before: int, after: int
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(before)
    tmp_path.chmod(0o755)

    private_folder(folder)

    assert mode(folder) == after
    assert mode(tmp_path) == 0o755


@pytest.mark.parametrize(("before", "after"), [(0o644, 0o600), (0o666, 0o600), (0o400, 0o400)])
def test_an_existing_file_is_closed_and_keeps_its_content(
    tmp_path: Path, before: int, after: int
) -> None:
    file = tmp_path / "file"
    file.write_text("content")
    file.chmod(before)

    private_file(file)

    assert mode(file) == after
    assert file.read_text() == "content"


def test_a_folder_with_the_sticky_bit_stays_open(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)

    private_folder(shared)

    assert mode(shared) == 0o1777


def test_files_of_another_user_are_unchanged(tmp_path: Path) -> None:
    folder = Path("/usr")  # Belongs to root.
    if os.geteuid() == 0:
        folder = tmp_path / "folder"
        folder.mkdir(mode=0o755)
        os.chown(folder, SOMEBODY_ELSE, SOMEBODY_ELSE)

    private_folder(folder)

    assert mode(folder) == 0o755


def test_a_link_is_followed_to_its_file(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "file")

    private_file(link)
    assert mode(tmp_path / "file") == 0o600
    (tmp_path / "file").chmod(0o644)
    private_file(link)

    assert mode(tmp_path / "file") == 0o600


def test_closing_a_missing_file_does_not_create_it(tmp_path: Path) -> None:
    close_to_others(tmp_path / "file")

    assert not (tmp_path / "file").exists()


def test_a_file_in_place_of_a_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "folder").touch()

    with pytest.raises(FileExistsError):
        private_folder(tmp_path / "folder")


def test_closing_a_database_keeps_the_locks_that_this_process_holds_on_it(tmp_path: Path) -> None:
    path = tmp_path / "rerank.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("CREATE TABLE t (a)")
        database.execute("BEGIN IMMEDIATE")

        private_file(path)

        other = subprocess.run(
            [sys.executable, "-c", WRITER, str(path)], check=False, capture_output=True, text=True
        )
    assert "database is locked" in other.stderr
