"""Other users of the machine cannot read any file of the service or its programs."""

import os
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from serve_app.cli import main
from serve_app.cli.up import _first_key
from serve_app.deployments.gateway import Gateway
from serve_app.deployments.local_ray import run_dir, short_path
from serve_app.domain.units import Seconds
from serve_app.ledger.db.engines import transaction
from serve_app.ledger.db.schema import migrate
from serve_app.ledger.events.queue import EventQueue
from serve_app.settings.gateway import Settings
from tests.support.ledger import a_tenant

TIMEOUT_S = Seconds(5)
DATABASE = {"rerank.db", "rerank.db-wal", "rerank.db-shm"}


@pytest.fixture(autouse=True)
def _open_umask() -> Iterator[None]:
    """Files that are created without an explicit mode are readable by all users."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture(params=["missing", "open"])
def var_dir(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder that does not exist yet, or one that is readable with all its content."""
    folder = tmp_path / "var"
    tmp_path.chmod(0o755)
    if request.param == "open":
        migrate(database_url(folder))
        for name in ("dev.key", "rerank.db-events"):
            (folder / name).touch()
        for name in ("huggingface", "ray", "run"):
            (folder / name).mkdir()
        for path in (folder, *folder.iterdir()):
            path.chmod(0o777 if path.is_dir() else 0o666)
    return folder


def database_url(folder: Path) -> str:
    return f"sqlite:///{folder / 'rerank.db'}"


def open_to_others(folder: Path) -> set[str]:
    """Return the names of files and folders that other users may read, write or enter."""
    found = (folder, *folder.rglob("*"))
    return {path.name for path in found if path.exists() and path.stat().st_mode & 0o077}


def test_up_and_its_ray_keep_everything_private(var_dir: Path) -> None:
    _first_key(Settings(var_dir=var_dir), var_dir)
    with (
        short_path(var_dir / "ray"),
        run_dir(var_dir),
        closing(EventQueue(database_url(var_dir), TIMEOUT_S)) as queue,
        queue.turn(),
        transaction(database_url(var_dir), TIMEOUT_S),
    ):
        names = {path.name for path in var_dir.iterdir()}
        assert names >= DATABASE | {"dev.key", "rerank.db-events", "ray", "run"}
        assert not open_to_others(var_dir)
    assert stat.S_IMODE(var_dir.parent.stat().st_mode) == 0o755


def test_a_gateway_keeps_its_folder_private(var_dir: Path) -> None:
    """Return the class that `serve deploy` starts, without the HTTP wrapper."""
    deployment: Any = Gateway
    gateway = deployment.func_or_class.__base__(Settings(var_dir=var_dir))
    try:
        with transaction(database_url(var_dir), TIMEOUT_S):
            assert {path.name for path in var_dir.iterdir()} >= DATABASE
            assert not open_to_others(var_dir) & DATABASE
            assert stat.S_IMODE(var_dir.stat().st_mode) == 0o700
    finally:
        gateway.__del__()


def test_ledger_commands_keep_the_folder_private(
    var_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RERANK_VAR_DIR", str(var_dir))
    backup = var_dir / "backup.db"

    for words in (["migrate"], ["backup", str(backup)]):
        done = CliRunner().invoke(main, ["ledger", *words])
        assert done.exit_code == 0, done.output

    assert stat.S_IMODE(var_dir.stat().st_mode) == 0o700
    assert not open_to_others(var_dir) & (DATABASE | {"backup.db"})


def test_a_database_elsewhere_is_private_and_its_folder_is_unchanged(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    url = database_url(tmp_path)

    migrate(url)
    a_tenant(url, 100)
    with transaction(url, TIMEOUT_S):
        assert {path.name for path in tmp_path.iterdir()} == DATABASE
        assert open_to_others(tmp_path) == {tmp_path.name}
