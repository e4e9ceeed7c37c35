"""All CSV files are written by the function that makes cells inert."""

import ast

from tests.support.source import sources

WRITER = "serve_app/domain/csv_export.py"


def test_only_one_module_writes_csv() -> None:
    importing = {
        name
        for name, tree in sources("serve_app")
        for node in ast.walk(tree)
        if isinstance(node, ast.Import) and "csv" in {alias.name for alias in node.names}
    }

    assert importing == {WRITER}
