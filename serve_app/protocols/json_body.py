"""Parse a body as a JSON object. Refuse input that two parsers could read differently.

Stricter than `json.loads`: UTF-8 only, no repeated names, no NaN. The wire formats check the
fields.
"""

import json
from collections.abc import Iterable
from json.decoder import scanstring  # type: ignore[attr-defined]  # typeshed leaves it out
from typing import NoReturn

from serve_app.domain.errors import InvalidRequest, TooLarge

SHOWN_CHARACTERS_MAX = 64

STRINGS_MAX = 25_000
OUTSIDE_STRINGS_CHARACTERS_MAX = 262_144
ESCAPES_MAX = 2_000_000
"""Limits on structure and escapes, which are slow to parse: 10 MB of ``[]`` take 0.7 s, 10 MB of
``\\n`` between letters take 30 ms, and 10 MB of plain text take a few milliseconds. Within these
limits no step takes more than about 20 ms, during which no other thread runs. The limits allow
1,000 documents with ten fields each, and 10 MB of text with every character escaped as ``\\uXXXX``.
"""


def read_object(body: bytes) -> dict[str, object]:
    """Return the JSON object in ``body``.

    Raises:
        TooLarge: ``body`` has too much structure.
        InvalidRequest: ``body`` is not a valid JSON object.

    Both errors name the field ``body``.
    """
    try:
        # Some clients on Windows send a byte order mark, which JSON parsers may skip.
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidRequest("body", f"is not UTF-8 at byte {error.start}") from None
    _check_structure(text)
    value = _parsed(text)
    if not isinstance(value, dict):
        raise InvalidRequest("body", "must be a JSON object")
    return value


def shown(name: str) -> str:
    """Make a client's text short and valid Unicode, for a response."""
    return name[:SHOWN_CHARACTERS_MAX].encode("utf-8", "replace").decode()


def text_fault(text: str) -> str | None:
    """Return why the database rejects ``text``, or ``None``."""
    if "\x00" in text:
        return "must not contain a NUL character"
    return unicode_fault(text)


def unicode_fault(text: str) -> str | None:
    """Return why ``text`` is not valid Unicode, or ``None``."""
    if text.isascii():
        return None
    try:
        text.encode()
    except UnicodeEncodeError:
        return "must not contain half of a surrogate pair"
    return None


def _check_structure(text: str) -> None:
    """Refuse a text that would take long to parse, without parsing all of it.

    A text that is not JSON may be accepted here; `_parsed` refuses it.
    """
    if text.count("\\") > ESCAPES_MAX:
        raise TooLarge("body", ESCAPES_MAX, "backslashes")
    strings = outside = position = 0
    while (quote := text.find('"', position)) >= 0:
        strings += 1
        outside += quote - position
        if strings > STRINGS_MAX or outside > OUTSIDE_STRINGS_CHARACTERS_MAX:
            break
        try:
            _, position = scanstring(text, quote + 1)
        except json.JSONDecodeError:
            return
    outside += len(text) - position
    if strings > STRINGS_MAX:
        raise TooLarge("body", STRINGS_MAX, "JSON strings")
    if outside > OUTSIDE_STRINGS_CHARACTERS_MAX:
        raise TooLarge(
            "body", OUTSIDE_STRINGS_CHARACTERS_MAX, "characters of JSON outside of strings"
        )


def _parsed(text: str) -> object:
    try:
        value: object = json.loads(
            text, object_pairs_hook=_without_repeats, parse_constant=_refuse_constant
        )
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InvalidRequest("body", f"is not valid JSON at {where}") from None
    except RecursionError:
        raise InvalidRequest("body", "is nested too deeply") from None
    except ValueError:  # Python refuses to parse integers with thousands of digits.
        raise InvalidRequest("body", "contains a number that is too long") from None
    return value


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        repeated = _first_repeated(name for name, _ in pairs)
        raise InvalidRequest("body", f"names the field '{shown(repeated)}' more than once")
    return fields


def _first_repeated(names: Iterable[str]) -> str:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    raise AssertionError("no name is repeated")


def _refuse_constant(constant: str) -> NoReturn:
    raise InvalidRequest("body", f"contains {constant}, which is not JSON")
