"""Write CSV files in which no text is a formula for a spreadsheet.

Source: OWASP, CSV Injection.
"""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence

RUN_AS_FORMULA = re.compile(r"\s*[=+\-@\t\r\n＝＋－＠]")  # noqa: RUF001 - full-width forms
"""The beginning of a text that a spreadsheet runs as a formula."""


def render_csv(
    columns: Sequence[str], rows: Iterable[Mapping[str, object]], *, line_end: str
) -> str:
    """Return CSV with a header, `inert` texts, and empty cells for ``None``.

    Raises: ValueError if a row has an unknown column.
    """
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, restval="", lineterminator=line_end)
    writer.writeheader()
    writer.writerows({name: inert(cell) for name, cell in row.items()} for row in rows)
    return out.getvalue()


def inert(cell: object) -> object:
    """Return ``cell``, with a single quote before a text that looks like a formula."""
    return f"'{cell}" if isinstance(cell, str) and RUN_AS_FORMULA.match(cell) else cell
