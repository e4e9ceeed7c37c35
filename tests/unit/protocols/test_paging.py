"""Cursors, query parameters and times: written values are read back, others are refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.domain.errors import InvalidRequest
from serve_app.domain.formats import write_day, write_moment
from serve_app.domain.units import Moment
from serve_app.protocols.paging import (
    INTEGER_MAX,
    Place,
    cut,
    read_cursor,
    read_limit,
    read_parameters,
    write_cursor,
)
from serve_app.protocols.times import read_moment

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
PLACES = st.lists(TEXTS | st.integers(0, INTEGER_MAX), max_size=4).map(tuple)
MOMENTS = st.integers(0, 253_402_300_799_999).map(Moment)  # Up to the year 9999.


@given(PLACES)
def test_a_cursor_is_read_as_it_was_written(place: Place) -> None:
    cursor = write_cursor("keys", place)

    assert cursor.isascii()
    assert not set(cursor) & set("+/=&?#% ")  # Needs no escaping in a URL.
    assert read_cursor(cursor, "keys", [type(value) for value in place]) == place


def test_the_longest_name_makes_a_cursor_that_is_read() -> None:
    place = ("\N{GRINNING FACE}" * 128, 2**63 - 1)

    assert read_cursor(write_cursor("tenants", place), "tenants", [str, int]) == place


@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda raw: raw.hex()))
def test_anything_else_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidRequest, match="cursor"):
        read_cursor(cursor, "keys", [int, str])


@pytest.mark.parametrize(
    "place",
    [("x", "x"), (1,), (1, "x", 2), (True, "x"), (-1, "x"), (2**63, "x"), (1, "nul\0")],
    ids=str,
)
def test_a_place_of_another_form_is_refused(place: Place) -> None:
    with pytest.raises(InvalidRequest):
        read_cursor(write_cursor("keys", place), "keys", [int, str])


def test_a_cursor_of_another_list_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        read_cursor(write_cursor("grants", (1, "x")), "keys", [int, str])


@pytest.mark.parametrize(("value", "limit"), [(None, 100), ("1", 1), ("1000", 1_000)])
def test_a_limit_is_read(value: str | None, limit: int) -> None:
    assert read_limit(value) == limit


@pytest.mark.parametrize("value", ["0", "1001", "-1", "1.0", "ten", "\u0661", "9" * 5_000])
def test_an_invalid_limit_names_its_bounds(value: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        read_limit(value)

    assert refusal.value.public_message.startswith("limit: must be a whole number from 1 to 1000")


def test_an_empty_parameter_counts_as_absent() -> None:
    assert read_parameters([("since", ""), ("limit", "5")], ("since", "limit")) == {"limit": "5"}


def test_an_unknown_parameter_names_the_known_ones() -> None:
    with pytest.raises(InvalidRequest) as refusal:
        read_parameters([("untill", "x")], ("since", "until"))

    assert refusal.value.where == "untill"
    assert "'since', 'until'" in refusal.value.public_message


def test_a_page_shows_whether_there_are_more_rows() -> None:
    assert cut([1, 2, 3], 2) == ([1, 2], True)
    assert cut([1, 2], 2) == ([1, 2], False)


@given(MOMENTS)
def test_a_moment_is_read_as_it_was_written(moment: Moment) -> None:
    written = write_moment(moment)

    assert read_moment("since", written) == moment
    assert written[:10] == write_day(moment)


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        ("1970-01-02", 86_400_000),
        ("1970-01-01T01:00", 3_600_000),
        ("1970-01-01T01:00:00.0019", 3_600_001),
        ("1970-01-01T01:00:00Z", 3_600_000),
        ("1970-01-01T01:00:00+01:00", 0),
    ],
)
def test_a_time_without_an_offset_is_utc(value: str, moment: int) -> None:
    assert read_moment("since", value) == moment


@pytest.mark.parametrize(
    "value", ["now", "1970", "1969-12-31", "1970-01-01T00:00:00+00:01", "10000-01-01", "0001-01-01"]
)
def test_an_invalid_time_is_named(value: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        read_moment("since", value)

    assert refusal.value.where == "since"
