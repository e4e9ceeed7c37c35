"""OpenVINO computes any model, unless its logits differ from torch's.

`test_cross_encoder.py` and `test_modular.py` compare the logits of the families.
"""

import logging
from pathlib import Path

import pytest

from serve_app.engine.limits import EngineLimits
from serve_app.engine.loading import load_engine, load_tokenizer
from serve_app.engine.openvino_model import OpenVinoModel
from serve_app.ports import Engine
from testkit.reference import portion, tokenize_pairs
from testkit.tiny_models import FAMILIES
from tests.support.varied_pairs import varied_pairs

pytestmark = pytest.mark.slow  # Compiles models of several families.

LIMITS = EngineLimits(batch_tokens_max=8_192, threads=1)
PAIRS = varied_pairs(80, words_max=12, long_texts=1)


def load(folder: Path, precision: str = "float32") -> Engine:
    return load_engine(str(folder), None, precision, LIMITS)


def score(engine: Engine, folder: Path) -> list[float]:
    pairs = tokenize_pairs(load_tokenizer(str(folder)), PAIRS)
    return engine.score([portion(pairs)])[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_openvino_computes_every_family_on_cpus(folders: dict[str, Path], family: str) -> None:
    engine = load(folders[family])

    assert engine.description.endswith("by OpenVINO") == (engine.device == "cpu")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_torch_computes_what_openvino_computes_wrongly(
    folders: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    precision: str,
) -> None:
    folder = folders["modernbert"]
    exact = score(load(folder), folder)
    right = OpenVinoModel.__call__
    monkeypatch.setattr(OpenVinoModel, "__call__", lambda self, inputs: -right(self, inputs))

    with caplog.at_level(logging.WARNING, "serve_app"):
        engine = load(folder, precision)

    tolerance = 1e-4 if precision == "float32" else 0.35
    assert score(engine, folder) == pytest.approx(exact, abs=tolerance)
    assert "OpenVINO" not in engine.description
    if engine.device == "cpu":
        (line,) = (record for record in caplog.records if record.name.startswith("serve_app"))
        assert (line.message, vars(line)["model"]) == ("openvino_not_used", str(folder))
        assert "differs by" in vars(line)["reason"]


def test_torch_computes_what_openvino_cannot_convert(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("no conversion rule")

    monkeypatch.setattr("openvino.convert_model", fails)
    with caplog.at_level(logging.WARNING, "serve_app"):
        engine = load(folders["electra"])

    engine.check()
    assert "OpenVINO" not in engine.description
    if engine.device == "cpu":
        reasons = [vars(line)["reason"] for line in caplog.records if hasattr(line, "reason")]
        assert reasons == ["RuntimeError: no conversion rule"]
