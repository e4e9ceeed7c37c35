"""A model is exported for OpenVINO once, and only exactly that export is used again."""

import json
import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from shutil import copytree

import pytest

from serve_app.engine import openvino_export
from serve_app.engine.limits import EngineLimits
from serve_app.engine.loading import load_engine
from serve_app.engine.openvino_exports import Export
from serve_app.engine.openvino_model import FACTS
from serve_app.ports import Engine
from testkit.service import ROOT

pytestmark = pytest.mark.slow  # Exports models, some in new processes.

LIMITS = EngineLimits(batch_tokens_max=1_024, forward_tokens_max=1_024, threads=1)

LOAD = """
import json, sys
from pathlib import Path
from serve_app.engine.limits import EngineLimits
from serve_app.engine.loading import load_engine
from serve_app.engine.sources import ModelLoadError
try:
    engine = load_engine(sys.argv[1], None, "float32", EngineLimits(1_024), Path(sys.argv[2]))
    engine.warm_up()
    said = engine.description
except ModelLoadError as error:
    said = str(error)
print(json.dumps([said, sorted({"torch", "transformers"} & sys.modules.keys())]))
"""


@pytest.fixture
def model(folders: dict[str, Path], tmp_path: Path) -> Path:
    return copytree(folders["bert"], tmp_path / "model")


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> list[Export]:
    """All exports since the start of the test."""
    seen = []
    export = openvino_export.export

    def recorded(wanted: Export, out: Path) -> None:
        seen.append(wanted)
        export(wanted, out)

    monkeypatch.setattr(openvino_export, "export", recorded)
    return seen


def load(model: Path, cache: Path, precision: str = "float32") -> Engine:
    engine = load_engine(str(model), None, precision, LIMITS, cache)
    if engine.device != "cpu":
        pytest.skip("torch computes on GPUs")
    engine.check()
    return engine


def test_a_model_is_exported_once(model: Path, tmp_path: Path, exports: list[Export]) -> None:
    for _ in range(3):
        assert load(model, tmp_path / "cache").description.endswith("by OpenVINO")

    assert len(exports) == 1


def test_processes_that_start_together_export_once(
    model: Path, tmp_path: Path, exports: list[Export]
) -> None:
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(lambda _: load(model, tmp_path / "cache"), range(3)))

    assert len(exports) == 1


def test_changed_files_are_exported_again(
    model: Path, tmp_path: Path, exports: list[Export]
) -> None:
    load(model, tmp_path / "cache")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"layer_norm_eps": 0.5}))

    load(model, tmp_path / "cache")

    assert len(exports) == 2


def test_a_copy_of_a_model_uses_the_same_export(
    model: Path, tmp_path: Path, exports: list[Export]
) -> None:
    load(model, tmp_path / "cache")
    load(copytree(model, tmp_path / "copy"), tmp_path / "cache")

    assert len(exports) == 1


def test_other_versions_and_options_are_other_exports(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {
        Export("m", str(model), precision, tokens).key()
        for precision in ("float32", "bfloat16")
        for tokens in (None, 64)
    }
    monkeypatch.setattr("serve_app.engine.export_cache.version", lambda _: "0")
    keys.add(Export("m", str(model), "float32", None).key())

    assert len(keys) == 5


def test_a_cache_that_cannot_be_written_is_no_cache(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, exports: list[Export]
) -> None:
    (tmp_path / "file").touch()

    with caplog.at_level(logging.WARNING, "serve_app"):
        for _ in range(2):
            assert load(model, tmp_path / "file" / "cache").description.endswith("by OpenVINO")

    assert {line.message for line in caplog.records} == {"engine_cache_not_used"}
    assert len(exports) == 2


def test_a_damaged_export_is_not_used_and_removed(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, exports: list[Export]
) -> None:
    load(model, tmp_path / "cache")
    (facts,) = (tmp_path / "cache").glob(f"*/{FACTS}")
    weights = facts.with_name("head.bin")
    weights.write_bytes(bytes(weights.stat().st_size))

    with caplog.at_level(logging.WARNING, "serve_app"):
        assert "OpenVINO" not in load(model, tmp_path / "cache").description
    assert load(model, tmp_path / "cache").description.endswith("by OpenVINO")

    assert [line.message for line in caplog.records] == ["openvino_not_used"]
    assert len(exports) == 2


def test_only_the_owner_can_read_the_cache(model: Path, tmp_path: Path) -> None:
    load(model, tmp_path / "cache")

    assert (tmp_path / "cache").stat().st_mode & 0o077 == 0


def test_a_scorer_on_a_cpu_imports_neither_torch_nor_transformers(
    model: Path, tmp_path: Path
) -> None:
    for _ in range(2):
        description, imported = in_a_new_process(model, tmp_path / "cache")

        assert description.endswith("by OpenVINO")
        assert imported == []


def test_an_export_in_a_child_process_reports_why_it_fails(model: Path, tmp_path: Path) -> None:
    (model / "model.safetensors").write_bytes(b"\0" * 100)

    message, _ = in_a_new_process(model, tmp_path / "cache")

    assert message.startswith(f"model {model}: its files cannot be loaded")


def in_a_new_process(model: Path, cache: Path) -> tuple[str, list[str]]:
    command = [sys.executable, "-c", LOAD, str(model), str(cache)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    said, imported = json.loads(done.stdout.splitlines()[-1])
    return said, imported
