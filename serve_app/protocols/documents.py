"""Documents of a request: strings, or objects with any fields."""

import json
import math
from collections.abc import Iterable, Sequence
from itertools import chain

from serve_app.domain.errors import InvalidRequest
from serve_app.protocols.json_body import shown, unicode_fault

DEPTH_MAX = 32
"""Levels of lists and objects within a field. JSON parsers' own limits differ between versions of
Python."""

Document = str | dict[str, object]


def text_of(index: int, document: Document, rank_fields: Sequence[str] | None) -> str:
    """Return the text of ``document`` that the model reads.

    Of an object, that is its ``text``. If it has none, or ``rank_fields`` names other fields, it is
    a line ``name: value`` for each field, in the order of ``rank_fields`` if given. Values that are
    not strings are written as JSON. Strings are not quoted or escaped, because the model reads them
    better as they are.

    Raises: InvalidRequest if there is nothing to read, or an answer could not contain the document.
    """
    if isinstance(document, str):
        if fault := unicode_fault(document):
            raise InvalidRequest(f"documents[{index}]", fault)
        return document
    for name, value in document.items():
        if fault := _first_fault((name, value), DEPTH_MAX):
            raise _invalid(index, name, fault)
    text = document.get("text")
    if not isinstance(text, str | None):
        raise _invalid(index, "text", "must be a string")
    if text is not None and (not rank_fields or rank_fields == ["text"]):
        return text
    return _text_of_fields(index, document, rank_fields)


def returned(document: Document, text: str) -> dict[str, object]:
    """Return the object for ``document`` in an answer, with a ``text``, which clients require."""
    if isinstance(document, str):
        return {"text": text}
    return document | {"text": text} if document.get("text") is None else document


def _text_of_fields(
    index: int, document: dict[str, object], rank_fields: Sequence[str] | None
) -> str:
    if not rank_fields and "image" in document:
        raise _invalid(index, "image", "is not supported; only texts can be ranked")
    names = dict.fromkeys(rank_fields or document)
    lines = [_line(name, document[name]) for name in names if document.get(name) is not None]
    if lines:
        return "\n".join(lines)
    if rank_fields:
        raise InvalidRequest(f"documents[{index}]", "has none of the rank_fields")
    raise _invalid(index, "text", "is required")


def _line(name: str, value: object) -> str:
    return f"{name}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"


def _invalid(index: int, field: str, problem: str) -> InvalidRequest:
    return InvalidRequest(f"documents[{index}].{shown(field)}", problem)


def _first_fault(values: Iterable[object], levels: int) -> str | None:
    return next((fault for value in values if (fault := _fault(value, levels))), None)


def _fault(value: object, levels: int) -> str | None:
    """Return why an answer could not contain ``value``."""
    if isinstance(value, str):
        return unicode_fault(value)
    if isinstance(value, float) and not math.isfinite(value):
        return "contains a number that is too large"
    if not isinstance(value, dict | list):
        return None
    if levels == 0:
        return "is nested too deeply"
    inner = chain(value, value.values()) if isinstance(value, dict) else value
    return _first_fault(inner, levels - 1)
