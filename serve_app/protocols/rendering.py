"""Render answers with many results to JSON.

One large call into Pydantic would block all other threads, and so would large copies. So each
result is rendered by itself, and `bytes.join`, which does not block, joins them once. A result is a
dictionary, because models of Pydantic take three times as long.
"""

from collections.abc import Iterable, Iterator, Mapping

from pydantic import BaseModel
from pydantic_core import to_json

Result = Mapping[str, object]
"""A typed dictionary of a wire format."""


def json_list(results: Iterable[Result]) -> bytes:
    return b"".join(_list_parts(results))


def with_results(answer: BaseModel, name: str, results: Iterable[Result]) -> bytes:
    """Return ``answer`` in JSON, with ``results`` in its list ``name``, which must be empty."""
    field = f'"{name}":'.encode()
    # No string in JSON contains the name between bare quotes.
    head, empty, tail = answer.model_dump_json().encode().partition(field + b"[]")
    assert empty
    return b"".join((head, field, *_list_parts(results), tail))


def _list_parts(results: Iterable[Result]) -> Iterator[bytes]:
    separator = b"["
    for result in results:
        yield separator
        yield to_json(result)
        separator = b","
    yield b"[]" if separator == b"[" else b"]"
