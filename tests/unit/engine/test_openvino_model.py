"""OpenVINO's behaviour apart from its results, which `test_cls_only.py` tests."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from serve_app.domain.errors import EngineFailure
from serve_app.engine.limits import EngineLimits
from serve_app.engine.loading import load_engine
from serve_app.engine.openvino_export import export
from serve_app.engine.openvino_exports import Export
from serve_app.engine.openvino_model import OpenVinoModel, computes
from testkit.service import ROOT

LIMITS = EngineLimits(batch_tokens_max=1_024, forward_tokens_max=1_024)

SCORE = """
import sys
from serve_app.engine.loading import load_engine
from serve_app.engine.limits import EngineLimits
engine = load_engine(sys.argv[1], None, "float32", EngineLimits(1_024, 1_024))
engine.check()
assert "OpenVINO" in engine.description
"""


def test_openvino_computes_float32_everywhere() -> None:
    assert computes("float32")


@pytest.mark.slow  # Loads an engine in a new process.
def test_telemetry_is_disabled(folders: dict[str, Path], tmp_path: Path) -> None:
    """OpenVINO's telemetry leaves a client id in the home directory before it sends anything.

    The environment is empty, because in a CI job the telemetry would be silent anyway.
    """
    command = [sys.executable, "-c", SCORE, str(folders["bert"])]

    subprocess.run(command, cwd=ROOT, env={"HOME": str(tmp_path)}, check=True)

    assert not (tmp_path / "intel").exists()


@pytest.mark.parametrize("threads", [1, 2])
def test_inputs_that_do_not_fit_each_other_are_a_runtime_error(
    folders: dict[str, Path], tmp_path: Path, threads: int
) -> None:
    export(Export("bert", str(folders["bert"]), "float32", None), tmp_path)
    model = OpenVinoModel(tmp_path, "float32", threads)
    inputs = {name: np.ones((2, 5), dtype=np.int64) for name in model.facts.inputs}

    with pytest.raises(RuntimeError):
        model(inputs | {"attention_mask": np.ones((3, 4), dtype=np.int64)})


def test_its_errors_are_engine_failures(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: object, **__: object) -> None:
        raise RuntimeError("no room")

    engine = load_engine(str(folders["bert"]), None, "float32", LIMITS)
    monkeypatch.setattr(OpenVinoModel, "__call__", no_room)

    with pytest.raises(EngineFailure, match="RuntimeError: no room"):
        engine.check()
