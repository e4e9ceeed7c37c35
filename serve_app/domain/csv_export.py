"""CSV that a spreadsheet shows as it is: no text cell is run as a formula.

Source: OWASP, CSV Injection.
"""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence

RUN_AS_FORMULA = re.compile(r"\s*[=+\-@\t\r\n＝＋－＠]")  # noqa: RUF001 - full-width forms
"""How such a text begins: with an operator or a control character, after any white space."""


def render_csv(
    columns: Sequence[str], rows: Iterable[Mapping[str, object]], *, line_end: str
) -> str:
    """A line with the names of ``columns``, then one line for each row.

    A cell that a row lacks, or that is ``None``, is empty. Text cells are made `inert`.

    Raises:
        ValueError: A row has a cell that belongs to no column.
    """
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, restval="", lineterminator=line_end)
    writer.writeheader()
    writer.writerows({name: inert(cell) for name, cell in row.items()} for row in rows)
    return out.getvalue()


def inert(cell: object) -> object:
    """``cell``, with a single quote before a text that a spreadsheet would run as a formula.

    Numbers stay numbers, negative ones too.
    """
    return f"'{cell}" if isinstance(cell, str) and RUN_AS_FORMULA.match(cell) else cell
