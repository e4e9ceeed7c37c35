import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cluster.lab import namespaces
from cluster.lab.__main__ import main
from cluster.lab.lab import Lab
from cluster.lab.namespaces import Ancestor, NoNamespaces

NOT_RUNNING = Ancestor(1, 0.0)


def lab_in(folder: Path, **more: Any) -> Lab:
    folder.mkdir(exist_ok=True)
    lab = Lab(folder, in_user_namespace=False, token="token", outer=NOT_RUNNING, **more)
    lab.save()
    return lab


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(main, arguments)


def test_a_lab_is_found_again_in_its_folder(tmp_path: Path) -> None:
    lab = lab_in(tmp_path, hosts={"head": NOT_RUNNING}, key="key")

    assert Lab.load(tmp_path) == lab
    assert (tmp_path / "lab.json").stat().st_mode & 0o077 == 0


def test_a_folder_without_a_lab_is_an_error_of_one_line(tmp_path: Path) -> None:
    for command in ("down", "status"):
        result = invoke(command, "--folder", str(tmp_path))

        assert result.exit_code == 1
        assert result.output == f"Error: There is no lab in '{tmp_path}'.\n"


def test_a_second_lab_in_the_same_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(namespaces, "needs_user_namespace", lambda: False)

    result = invoke("up", "--folder", str(tmp_path))

    assert "'python -m cluster.lab down' removes a lab" in result.output


def test_without_namespaces_nothing_is_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> bool:
        raise NoNamespaces("The lab needs root.")

    monkeypatch.setattr(namespaces, "needs_user_namespace", refuse)

    result = invoke("up", "--folder", str(tmp_path / "lab"))

    assert result.output == "Error: The lab needs root.\n"
    assert not (tmp_path / "lab").exists()


def test_the_status_of_a_lab_that_has_ended_lists_its_hosts(tmp_path: Path) -> None:
    lab_in(tmp_path, hosts={"head": NOT_RUNNING})

    state = json.loads(invoke("status", "--json", "--folder", str(tmp_path)).output)

    assert state["running"] is False
    assert {host["running"] for host in state["hosts"]} == {False}
    assert "the lab does not run" in invoke("status", "--folder", str(tmp_path)).output


def test_a_command_needs_a_running_host(tmp_path: Path) -> None:
    lab_in(tmp_path, hosts={"head": NOT_RUNNING})

    unknown = invoke("run", "--folder", str(tmp_path), "nowhere", "true")
    ended = invoke("run", "--folder", str(tmp_path), "head", "true")

    assert "There is no host 'nowhere'. The hosts: head, cpu-1" in unknown.output
    assert ended.output == "Error: The host 'head' does not run.\n"


def test_down_removes_the_files_of_a_lab_that_has_ended(tmp_path: Path) -> None:
    folder = tmp_path / "lab"
    lab_in(folder)

    assert invoke("down", "--folder", str(folder)).exit_code == 0
    assert not folder.exists()
