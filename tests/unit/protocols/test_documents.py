"""Documents as objects: which fields the model reads, and what an answer returns."""

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from serve_app.domain.errors import InvalidRequest
from serve_app.protocols.documents import returned, text_of

BOOK = {"title": "Il nome della rosa", "author": "Umberto Eco", "year": 1980, "text": "A mystery"}

words = st.from_regex(r"word[a-z ]{0,20}[a-z]", fullmatch=True)  # YAML does not quote them.


@pytest.mark.parametrize(
    ("rank_fields", "text"),
    [
        (None, "A mystery"),
        ([], "A mystery"),
        (["text"], "A mystery"),
        (["title"], "title: Il nome della rosa"),
        (["year", "title"], "year: 1980\ntitle: Il nome della rosa"),
        (["text", "author"], "text: A mystery\nauthor: Umberto Eco"),
        (["author", "author"], "author: Umberto Eco"),
        (["publisher", "author"], "author: Umberto Eco"),
    ],
)
def test_the_fields_to_read_can_be_chosen(rank_fields: list[str] | None, text: str) -> None:
    assert text_of(0, BOOK, rank_fields) == text


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ('a "quoted": text # 😀 größe', 'field: a "quoted": text # 😀 größe'),
        (["größe", 1, None, True], 'field: ["größe", 1, null, true]'),
        ({"a": {"b": 0.1}}, 'field: {"a": {"b": 0.1}}'),
        (False, "field: false"),
        (1e300, "field: 1e+300"),
        ("", "field: "),
    ],
)
def test_an_object_without_a_text_is_read_as_lines(value: object, line: str) -> None:
    assert text_of(0, {"field": value, "empty": None}, None) == line


@given(st.dictionaries(words, words | st.integers() | st.booleans(), min_size=1))
def test_simple_fields_are_read_as_yaml(document: dict[str, Any]) -> None:
    """Clients that convert objects themselves with PyYAML get the same scores."""
    expected = yaml.safe_dump(document, sort_keys=False, width=1_000).rstrip("\n")

    assert text_of(0, document, None) == expected


@pytest.mark.parametrize(
    ("document", "rank_fields", "where"),
    [
        ({}, None, "documents[3].text"),
        ({"text": None}, None, "documents[3].text"),
        ({"text": 1}, None, "documents[3].text"),
        ({"text": 1, "title": "a"}, ["title"], "documents[3].text"),
        ({"title": "a"}, ["text"], "documents[3]"),
        ({"title": None}, ["title"], "documents[3]"),
        ({"image": "a.png", "title": "a"}, None, "documents[3].image"),
        ({"text": "a", "\ud83d": 1}, None, "documents[3].?"),
    ],
)
def test_an_error_names_what_cannot_be_read(
    document: dict[str, object], rank_fields: list[str] | None, where: str
) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        text_of(3, document, rank_fields)

    assert refusal.value.where == where


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ("a", {"text": "a"}),
        (BOOK, BOOK),
        ({"title": "a"}, {"title": "a", "text": "title: a"}),
        ({"text": None, "title": "a"}, {"text": "title: a", "title": "a"}),
        ({"text": "a", "note": None}, {"text": "a", "note": None}),
    ],
)
def test_a_returned_document_always_has_a_text(
    document: str | dict[str, object], expected: dict[str, object]
) -> None:
    assert returned(document, text_of(0, document, None)) == expected
