"""All CSV files are written by the function that makes cells inert."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "serve_app").rglob("*.py"))
WRITER = "serve_app/domain/csv_export.py"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_one_module_writes_csv(path: Path) -> None:
    imported = {
        alias.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import)
        for alias in node.names
    }

    assert "csv" not in imported or str(path.relative_to(ROOT)) == WRITER
