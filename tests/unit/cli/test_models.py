"""``rerank-serve models export``: results and errors."""

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from serve_app.cli import main
from serve_app.engine.sources import ModelLoadError


def export(model: str, folder: Path) -> Result:
    return CliRunner().invoke(main, ["models", "export", model, str(folder)])


def fails(result: Result) -> str:
    """Return stderr, which must be one line, and check for exit code 1."""
    assert result.exit_code == 1, result.output
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return the folders passed to the export, which is replaced and writes nothing."""
    folders: list[Path] = []
    monkeypatch.setattr("serve_app.engine.export.export_embedded", folders.append)
    return folders


@pytest.mark.parametrize("exists", [False, True])
def test_a_new_or_empty_folder_is_written(
    tmp_path: Path, written: list[Path], *, exists: bool
) -> None:
    folder = tmp_path if exists else tmp_path / "new"

    result = export("embedded", folder)

    assert result.exit_code == 0, result.output
    assert str(folder) in result.stdout
    assert written == [folder]


def test_a_folder_with_anything_in_it_is_left_alone(tmp_path: Path, written: list[Path]) -> None:
    (tmp_path / ".hidden").touch()

    assert "is not empty" in fails(export("embedded", tmp_path))
    assert written == []


def test_a_file_in_place_of_the_folder_is_left_alone(tmp_path: Path, written: list[Path]) -> None:
    (tmp_path / "file").write_text("kept")

    assert "cannot be written" in fails(export("embedded", tmp_path / "file"))
    assert written == []
    assert (tmp_path / "file").read_text() == "kept"


def test_another_model_is_refused(tmp_path: Path, written: list[Path]) -> None:
    message = fails(export("acme/reranker", tmp_path / "new"))

    assert "Only the model 'embedded' can be exported, not 'acme/reranker'" in message
    assert written == []


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ModelLoadError("model embedded: a.safetensors: the file is missing"), "a.safetensors"),
        (OSError(28, "No space left on device"), "No space left"),
    ],
)
def test_a_failure_prints_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, says: str
) -> None:
    def failing(_: Path) -> None:
        raise error

    monkeypatch.setattr("serve_app.engine.export.export_embedded", failing)

    assert says in fails(export("embedded", tmp_path / "new"))


def test_the_command_line_imports_no_slow_package() -> None:
    """The hub's client also reads ``HF_HOME`` when it is imported, which ``up`` sets later."""
    slow = {"huggingface_hub", "openvino", "ray", "torch", "transformers"}
    check = f"import sys, serve_app.cli; print(sorted({slow} & sys.modules.keys()))"

    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
