"""No text cell of a CSV file is a formula."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.domain.csv_export import inert, render_csv

STARTS = "=+-@\t\r\n＝＋－＠"  # noqa: RUF001 - full-width forms


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("before", ["", " ", "  \u00a0", "\u3000", "\t"])
def test_a_text_that_a_spreadsheet_would_execute_is_quoted(before: str, start: str) -> None:
    text = f"{before}{start}cmd|'/c calc'!A1"

    assert inert(text) == f"'{text}"


@pytest.mark.parametrize("cell", ["", "acme", "a=1", "2026-11-24", "'quoted", -5, 0, 2.5, None])
def test_other_cells_are_unchanged(cell: object) -> None:
    assert inert(cell) is cell


@given(st.text())
def test_no_text_starts_like_a_formula(text: str) -> None:
    shown = inert(text)

    assert isinstance(shown, str)
    assert not shown.lstrip().startswith(tuple(STARTS))
    assert shown in (text, f"'{text}")


def test_rows_have_every_column_and_numbers_stay_numbers() -> None:
    rows: list[dict[str, object]] = [
        {"name": "=1+1", "amount": -5},
        {"name": "b", "amount": None},
        {"name": "a,b"},
    ]

    text = render_csv(("name", "amount"), rows, line_end="\r\n")

    assert text == 'name,amount\r\n\'=1+1,-5\r\nb,\r\n"a,b",\r\n'
    assert list(csv.reader(io.StringIO(text)))[1] == ["'=1+1", "-5"]


def test_an_unknown_column_is_an_error() -> None:
    with pytest.raises(ValueError, match="other"):
        render_csv(("name",), [{"other": 1}], line_end="\n")
