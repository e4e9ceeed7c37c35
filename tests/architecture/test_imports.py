"""Tests and benchmarks do not import each other; `testkit` holds what both use."""

import ast
from collections.abc import Iterator

import pytest

from tests.support.source import sources


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("conformance", {"serve_app", "testkit", "tests", "benchmarks"}),
        ("benchmarks", {"tests"}),
        ("testkit", {"tests", "benchmarks"}),
        ("tests", {"benchmarks"}),
    ],
)
def test_imports_respect_the_top_level_folders(folder: str, forbidden: set[str]) -> None:
    wrong = [
        f"{name} imports {module}"
        for name, tree in sources(folder)
        for module in imported(tree)
        if module.partition(".")[0] in forbidden
    ]

    assert not wrong


def imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
