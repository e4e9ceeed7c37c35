"""Documents of a request: strings, or objects with a text and any other fields."""

import math
from collections.abc import Iterable, Mapping
from itertools import chain

from serve_app.domain.errors import InvalidRequest
from serve_app.protocols.json_body import shown, unicode_fault

DEPTH_MAX = 32
"""Levels of lists and objects within a field. JSON parsers and serializers have limits of their
own, which differ between versions of Python."""

Document = str | Mapping[str, object]


def text_of(path: str, document: Document) -> str:
    """Return the text that the model reads. ``path`` is the document's, for error messages.

    Raises: InvalidRequest if there is no text, or an answer could not contain the document.
    """
    if isinstance(document, str):
        _check(path, document)
        return document
    for name, value in document.items():
        _check(f"{path}.{shown(name)}", value, name)
    text = document.get("text")
    if text is None:
        raise InvalidRequest(f"{path}.text", "is required")
    if not isinstance(text, str):
        raise InvalidRequest(f"{path}.text", "must be a string")
    return text


def returned(document: Document) -> dict[str, object]:
    """Return the object for ``document`` in an answer."""
    return {"text": document} if isinstance(document, str) else dict(document)


def _check(path: str, *values: object) -> None:
    if fault := _first_fault(values, DEPTH_MAX):
        raise InvalidRequest(path, fault)


def _first_fault(values: Iterable[object], levels: int) -> str | None:
    return next((fault for value in values if (fault := _fault(value, levels))), None)


def _fault(value: object, levels: int) -> str | None:
    """Return why an answer could not contain ``value``, or ``None``."""
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
