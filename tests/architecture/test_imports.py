"""Tests and benchmarks do not import each other; `testkit` holds what both use."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FORBIDDEN = {
    "conformance": {"serve_app", "testkit", "tests", "benchmarks"},
    "benchmarks": {"tests"},
    "testkit": {"tests", "benchmarks"},
    "tests": {"benchmarks"},
}
FILES = sorted(path for folder in FORBIDDEN for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_respect_the_top_level_folders(path: Path) -> None:
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            imported.add(node.module.split(".")[0])
        elif isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}

    assert not imported & FORBIDDEN[path.relative_to(ROOT).parts[0]]
