import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from cluster.lab.namespaces import (
    Ancestor,
    LabError,
    NoNamespaces,
    entering,
    needs_user_namespace,
    run,
    wait_for,
)


def program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/bash\n{script}\n")
    path.chmod(0o755)


def test_a_system_without_namespaces_is_reported_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program(
        tmp_path / "unshare", "echo 'unshare: unshare failed: Operation not permitted' >&2; exit 1"
    )
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    with pytest.raises(NoNamespaces) as raised:
        needs_user_namespace()

    assert str(raised.value).endswith("Operation not permitted")
    assert "\n" not in str(raised.value)


def test_a_user_namespace_is_used_where_only_that_works(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program(tmp_path / "unshare", 'test "$1" = --user')
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    assert needs_user_namespace()


def test_a_missing_program_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(NoNamespaces, match="unshare"):
        needs_user_namespace()


def test_another_process_with_the_same_id_is_not_the_ancestor() -> None:
    own = Ancestor.of(psutil.Process())

    assert own.process() is not None
    assert Ancestor(own.pid, own.started_s - 1).process() is None


def test_an_ended_ancestor_has_no_descendants() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    ancestor = Ancestor.of(psutil.Process(child.pid))
    child.wait()

    assert ancestor.process() is None
    assert ancestor.descendants() == []
    ancestor.end()


def test_a_failed_command_is_reported_by_its_last_line() -> None:
    with pytest.raises(LabError, match=r"^'the test' failed: second$"):
        run(["bash", "-c", "echo first >&2; echo second >&2; exit 3"], name="the test")


def test_a_command_has_a_time_limit() -> None:
    with pytest.raises(LabError, match=r"'sleep 60' took more than 0.1 s"):
        run(["sleep", "60"], timeout_s=0.1)


def test_waiting_has_a_time_limit() -> None:
    with pytest.raises(LabError, match=r"it did not happen within 0.1 s"):
        wait_for(lambda: False, 0.1, "it")


def test_a_user_namespace_is_entered_with_the_others() -> None:
    ancestor = Ancestor(12, 0.0)

    assert entering(ancestor, ["--net"], in_user_namespace=False) == [
        "nsenter",
        "--target=12",
        "--net",
    ]
    assert "--user" in entering(ancestor, in_user_namespace=True)
