"""Query parameters and pages of lists.

A cursor encodes the place of a page's last row. The next page starts after it, even if rows were
added or removed.

An unknown query parameter is refused: with a misspelt ``until``, the sums would cover the wrong
period.
"""

import base64
import binascii
import json
from collections.abc import Collection, Iterable, Sequence
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, Field

from serve_app.domain.errors import InvalidRequest
from serve_app.protocols.json_body import shown, text_fault

LIMIT, CURSOR = "limit", "cursor"
LIMIT_DEFAULT = 100
LIMIT_MAX = 1_000
CURSOR_CHARACTERS_MAX = 2_048
INTEGER_MAX = 2**63 - 1

Place = tuple[str | int, ...]
"""Position of a row in its list."""

Row = TypeVar("Row")


class Page(BaseModel):
    """One page of a list, in the order of the list."""

    object: Literal["list"] = "list"
    has_more: bool
    next_cursor: Annotated[
        str | None, Field(description="The `cursor` of the next page; null on the last page.")
    ]


def read_parameters(
    parameters: Iterable[tuple[str, str]], known: Collection[str]
) -> dict[str, str]:
    """Return the parameters that are not empty.

    Raises: InvalidRequest if one is unknown, is given twice or has text that the database rejects.
    """
    values: dict[str, str] = {}
    for name, value in parameters:
        if name not in known:
            names = ", ".join(f"'{each}'" for each in known)
            raise InvalidRequest(shown(name), f"is not a parameter of this route; allowed: {names}")
        if name in values:
            raise InvalidRequest(name, "is given more than once")
        if fault := text_fault(value):
            raise InvalidRequest(name, fault)
        values[name] = value
    return {name: value for name, value in values.items() if value}


def read_limit(value: str | None, default: int = LIMIT_DEFAULT, most: int = LIMIT_MAX) -> int:
    """Raises: InvalidRequest."""
    if value is None:
        return default
    number = int(value) if value.isascii() and value.isdigit() and len(value) < 10 else 0
    if not 1 <= number <= most:
        raise InvalidRequest(LIMIT, f"must be a whole number from 1 to {most}")
    return number


def write_cursor(of: str, place: Place) -> str:
    """Return a cursor; ``of`` names the list and its order."""
    text = json.dumps([of, *place], separators=(",", ":"), ensure_ascii=False)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_cursor(value: str | None, of: str, kinds: Sequence[type[str] | type[int]]) -> Place | None:
    """Return the place of a cursor.

    Raises: InvalidRequest if `write_cursor` did not write ``value`` for the same list.
    """
    if value is None:
        return None
    found = _decoded(value)
    if found[:1] != [of] or not _fits(found[1:], kinds):
        raise InvalidRequest(CURSOR, "is not one that this route returned for the same parameters")
    return tuple(found[1:])


def cut(rows: Sequence[Row], limit: int) -> tuple[Sequence[Row], bool]:
    return rows[:limit], len(rows) > limit


def _decoded(value: str) -> list[str | int]:
    if len(value) > CURSOR_CHARACTERS_MAX or not value.isascii():
        return []
    try:
        text = base64.b64decode(value + "=" * (-len(value) % 4), b"-_", validate=True)
        found = json.loads(text)
    except (binascii.Error, ValueError, RecursionError):
        return []
    return found if isinstance(found, list) else []


def _fits(place: Sequence[object], kinds: Sequence[type]) -> bool:
    if [type(value) for value in place] != list(kinds):
        return False
    texts_fit = not any(isinstance(value, str) and text_fault(value) for value in place)
    return texts_fit and all(0 <= value <= INTEGER_MAX for value in place if isinstance(value, int))
