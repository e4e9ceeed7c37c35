"""Render answers with many results to JSON.

Pydantic and large copies block all other threads. So each result is rendered by itself, and
`bytes.join`, which does not block, joins them once.
"""

from collections.abc import Iterable, Iterator

from pydantic import BaseModel


def json_list(results: Iterable[BaseModel]) -> bytes:
    return b"".join(_list_parts(results))


def with_results(answer: BaseModel, name: str, results: Iterable[BaseModel]) -> bytes:
    """Return ``answer`` in JSON, with ``results`` in its list ``name``, which must be empty."""
    field = f'"{name}":'.encode()
    # No string in JSON contains the name between bare quotes.
    head, empty, tail = _json(answer).partition(field + b"[]")
    assert empty
    return b"".join((head, field, *_list_parts(results), tail))


def _list_parts(results: Iterable[BaseModel]) -> Iterator[bytes]:
    separator = b"["
    for result in results:
        yield separator
        yield _json(result)
        separator = b","
    yield b"[]" if separator == b"[" else b"]"


def _json(part: BaseModel) -> bytes:
    return part.model_dump_json(exclude_none=True).encode()
