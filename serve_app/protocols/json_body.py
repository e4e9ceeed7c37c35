"""Parse a body as a JSON object. Refuse input that two parsers could read differently.

Stricter than `json.loads`: UTF-8 only, no repeated names, no NaN.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from json.decoder import scanstring  # type: ignore[attr-defined]  # typeshed leaves it out
from json.scanner import py_make_scanner  # type: ignore[attr-defined]  # as above
from typing import NoReturn

from serve_app.domain.errors import InvalidRequest, TooLarge

SHOWN_CHARACTERS_MAX = 64

FAST_CHARACTERS_MAX = 1_000_000
"""Longer texts are parsed in Python, because the parser in C blocks all other threads, for a few
milliseconds at this length."""


@dataclass(frozen=True, slots=True)
class JsonLimits:
    """Limits on structure and escapes, which are slow to parse.

    10 MB of ``[]`` take 0.7 s, and 10 MB of plain text a few milliseconds. The defaults allow 1,000
    documents with ten fields each, and 10 MB of characters escaped as ``\\uXXXX``. Within them,
    other threads wait for at most about 20 ms.
    """

    strings_max: int = 25_000
    outside_strings_characters_max: int = 262_144
    escapes_max: int = 2_000_000


DEFAULT_LIMITS = JsonLimits()


def read_object(body: bytes | bytearray, limits: JsonLimits = DEFAULT_LIMITS) -> dict[str, object]:
    """Return the JSON object in ``body``.

    Raises: TooLarge for too much structure; InvalidRequest if it is not a JSON object.
    """
    try:
        # Some clients on Windows send a byte order mark.
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidRequest("body", f"is not UTF-8 at byte {error.start}") from None
    _check_structure(text, limits)
    value = _parsed(text)
    if not isinstance(value, dict):
        raise InvalidRequest("body", "must be a JSON object")
    return value


def shown(name: str) -> str:
    """Make a client's text short and valid Unicode."""
    return name[:SHOWN_CHARACTERS_MAX].encode("utf-8", "replace").decode()


def text_fault(text: str) -> str | None:
    """Return why the database rejects ``text``."""
    if "\x00" in text:
        return "must not contain a NUL character"
    return unicode_fault(text)


def unicode_fault(text: str) -> str | None:
    """Return why ``text`` is not valid Unicode."""
    if text.isascii():
        return None
    try:
        text.encode()
    except UnicodeEncodeError:
        return "must not contain half of a surrogate pair"
    return None


def _check_structure(text: str, limits: JsonLimits) -> None:
    """Refuse a text that would take long to parse. One that is not JSON may pass."""
    if text.count("\\") > limits.escapes_max:
        raise TooLarge("body", limits.escapes_max, "backslashes")
    strings_max, outside_max = limits.strings_max, limits.outside_strings_characters_max
    strings = outside = position = 0
    while (quote := text.find('"', position)) >= 0:
        strings += 1
        outside += quote - position
        if strings > strings_max or outside > outside_max:
            break
        try:
            _, position = scanstring(text, quote + 1)
        except json.JSONDecodeError:
            return
    outside += len(text) - position
    if strings > strings_max:
        raise TooLarge("body", strings_max, "JSON strings")
    if outside > outside_max:
        raise TooLarge("body", outside_max, "characters of JSON outside of strings")


def _parsed(text: str) -> object:
    decoder = json.JSONDecoder(object_pairs_hook=_without_repeats, parse_constant=_refuse_constant)
    if len(text) > FAST_CHARACTERS_MAX:
        decoder.scan_once = py_make_scanner(decoder)  # type: ignore[attr-defined]  # as above
    try:
        value: object = decoder.decode(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InvalidRequest("body", f"is not valid JSON at {where}") from None
    except RecursionError:
        raise InvalidRequest("body", "is nested too deeply") from None
    except ValueError:  # Python refuses integers with thousands of digits.
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
