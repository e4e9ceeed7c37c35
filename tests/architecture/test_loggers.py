"""All log calls use a logger that never raises."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "serve_app").rglob("*.py"))
EXCUSED = {
    "serve_app/telemetry/logs.py",  # It wraps the standard loggers.
    "serve_app/deployments/logs.py",  # It moves handlers and logs nothing.
    "serve_app/deployments/local_ray.py",  # It sets levels and logs nothing.
}
FORBIDDEN = {"getLogger", "debug", "info", "warning", "error", "exception", "critical", "log"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_use_loggers_that_cannot_raise(path: Path) -> None:
    used = {
        node.attr
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "logging"
    }

    if str(path.relative_to(ROOT)) not in EXCUSED:
        assert not used & FORBIDDEN
