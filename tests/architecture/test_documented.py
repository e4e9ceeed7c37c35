"""All settings, metrics, error codes and Ray variables are documented. Idea: Datasette."""

import inspect
from pathlib import Path

import pytest

from serve_app.domain import errors
from serve_app.settings import ModelSettings, Settings
from serve_app.telemetry.metrics import METRICS

ROOT = Path(__file__).parents[2]
OPERATIONS = (ROOT / "docs/operations.md").read_text()
API = (ROOT / "docs/api.md").read_text()
CODES = sorted(
    {
        member.code
        for _, member in inspect.getmembers(errors, inspect.isclass)
        if issubclass(member, errors.RerankError) and member is not errors.RerankError
    }
)


@pytest.mark.parametrize("name", [*Settings.model_fields, *ModelSettings.model_fields])
def test_every_setting_is_in_the_operations_guide(name: str) -> None:
    assert f"`{name}`" in OPERATIONS


@pytest.mark.parametrize("name", [metric.name for metric in METRICS])
def test_every_metric_is_in_the_operations_guide(name: str) -> None:
    assert f"`{name}`" in OPERATIONS


@pytest.mark.parametrize("code", CODES)
def test_every_error_code_is_in_the_api_guide(code: str) -> None:
    assert f"`{code}`" in API
