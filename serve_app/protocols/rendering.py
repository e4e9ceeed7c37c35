"""Render answers with many results to JSON.

Pydantic blocks all other threads while it renders, so each result is rendered by itself. Large
copies block them, too, so the parts are joined once, by `bytes.join`, which does not.
"""

from collections.abc import Iterable, Iterator

from pydantic import BaseModel


def json_list(results: Iterable[BaseModel]) -> bytes:
    """Return ``results`` as a list in JSON."""
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
