"""Comparison of two sweeps, or of two runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loadtests.report import comparison, limit_of, read

Contents = Mapping[str, Mapping[str, Any]]


def named(first: Path, second: Path) -> dict[str, dict[str, Any]]:
    """Read two results of the same kind, and name each by the part in which the paths differ.

    Raises: ValueError: A file is not a result, or the two are of different kinds.
    """
    names = [path.stem for path in (first, second)]
    if names[0] == names[1]:
        names = [path.absolute().parent.name for path in (first, second)]
    if names[0] == names[1]:
        names = ["first", "second"]
    contents = [read(path) for path in (first, second)]
    if ("steps" in contents[0]) != ("steps" in contents[1]):
        raise ValueError("One file is the result of a sweep, the other the summary of a run.")
    return dict(zip(names, contents, strict=True))


def compared(contents: Contents) -> tuple[str, list[str], list[list[str]]]:
    """Return a sentence, and the columns and rows of a table."""
    first, second = contents.values()
    columns = ["", *contents]
    if "steps" in first:
        rows = [
            ["limit", limit_of(first), limit_of(second)],
            ["saturates first", first["saturates_first"], second["saturates_first"]],
        ]
        return comparison(first, second), columns, rows
    return _compared_runs(first, second), [*columns, "change"], _rows(first, second)


def _compared_runs(first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    differing = [name for name in first["plan"] if first["plan"][name] != second["plan"].get(name)]
    if differing:
        return f"The loads differ in: {', '.join(differing)}"
    return "Both runs had the same load"


def _rows(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[list[str]]:
    """Return the figures of all requests and of the classes that both runs have."""
    rows = []
    others = {each["name"]: each for each in (second["total"], *second["classes"])}
    for before in (first["total"], *first["classes"]):
        if (after := others.get(before["name"])) is None:
            continue
        figures = {
            "documents/s answered": [each["goodput_documents_per_s"] for each in (before, after)],
            **{
                f"{share}, ms": [(each["latency_ms"] or {}).get(share) for each in (before, after)]
                for share in ("p50", "p99")
            },
            "refused": [each["refused_ratio"] for each in (before, after)],
            "failed": [each["error_ratio"] for each in (before, after)],
        }
        rows += [
            [f"{before['name']}: {name}", *map(_number, values), _change(*values)]
            for name, values in figures.items()
        ]
    return rows


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.4g}" if value < 1 else f"{value:,.1f}"


def _change(before: float | None, after: float | None) -> str:
    return f"{after / before - 1:+.1%}" if before and after is not None else "-"
