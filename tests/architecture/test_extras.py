"""The package works without its extras, except for what an extra is for."""

from pathlib import Path

import pytest

from testkit.without_packages import run_without

pytestmark = pytest.mark.slow  # Imports in new processes.

ENGINE = ("torch", "safetensors", "transformers", "openvino")
EXPORTER = "opentelemetry.exporter.otlp"
LOAD = ("locust", "matplotlib", "scipy")


def test_a_gateway_imports_no_package_of_an_extra(tmp_path: Path) -> None:
    program = "import serve_app.app, serve_app.cli, serve_app.deployments.gateway; print('ok')"

    assert run_without([*ENGINE, *LOAD, "psycopg", EXPORTER], program, tmp_path) == "ok\n"


def test_a_gateway_reads_a_models_tokenizer_without_torch(tmp_path: Path) -> None:
    program = (
        "from serve_app.engine.loading import load_tokenizer\n"
        "print(load_tokenizer('embedded').pair_tokens_max)"
    )

    assert run_without(["torch", "openvino", "psycopg"], program, tmp_path) == "512\n"


def test_without_openvino_torch_computes_encoders_on_cpus(tmp_path: Path) -> None:
    program = (
        "import torch\n"
        "torch.cuda.is_available = lambda: False\n"
        "from serve_app.engine.limits import EngineLimits\n"
        "from serve_app.engine.loading import load_engine\n"
        "limits = EngineLimits(batch_tokens_max=8_192)\n"
        "print(load_engine('embedded', None, 'float32', limits).description)"
    )

    assert "OpenVINO" not in run_without(["openvino"], program, tmp_path)


MISSING_ENGINE = """\
from serve_app.engine.limits import EngineLimits
from serve_app.engine.loading import load_engine
from serve_app.engine.sources import ModelLoadError
try:
    load_engine("embedded", None, "auto", EngineLimits(batch_tokens_max=8_192))
except ModelLoadError as error:
    print(error)
"""
MISSING_ENGINE_TO_EXPORT = """\
from click.testing import CliRunner
from serve_app.cli import main
print(CliRunner().invoke(main, ["models", "export", "embedded", "never-written"]).output)
"""
MISSING_EXPORTER = """\
from serve_app.deployments.traces import TracesNotInstalled, connect, connect_if_installed
connect_if_installed("rerank-scorer").export([])
try:
    connect("rerank-gateway")
except TracesNotInstalled as error:
    print(error)
"""
MISSING_LOCUST = """\
from click.testing import CliRunner
from serve_app.cli import main
print(CliRunner().invoke(main, ["loadtest", "run"]).output)
"""
MISSING_DRIVER = """\
from serve_app.ledger.db.engines import parse_url
try:
    parse_url("postgresql://host/ledger")
except ValueError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("missing", "program", "remedy"),
    [
        (["torch"], MISSING_ENGINE, "pip install 'rerank-serve[engine]'"),
        (["torch"], MISSING_ENGINE_TO_EXPORT, "pip install 'rerank-serve[engine]'"),
        (["locust"], MISSING_LOCUST, "pip install 'rerank-serve[loadtest]'"),
        (["psycopg"], MISSING_DRIVER, "pip install 'rerank-serve[postgres]'"),
        ([EXPORTER], MISSING_EXPORTER, "pip install 'rerank-serve[traces]'"),
    ],
)
def test_the_error_names_the_missing_extra(
    tmp_path: Path, missing: list[str], program: str, remedy: str
) -> None:
    assert remedy in run_without(missing, program, tmp_path)
