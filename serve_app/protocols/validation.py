"""Validate a JSON object, with our own error messages."""

from collections.abc import Iterator, Mapping
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from serve_app.domain.errors import InvalidRequest
from serve_app.protocols.json_body import shown, text_fault

Wire = TypeVar("Wire", bound=BaseModel)

_TAGS = {"string", "object"}


def validated(kind: type[Wire], fields: Mapping[str, object]) -> Wire:
    """Raises: InvalidRequest, which names the field, such as ``documents[3].text``."""
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise InvalidRequest(_path(first["loc"]), _problem(first)) from None


def check_texts(fields: Mapping[str, object]) -> None:
    """Raises: InvalidRequest if the database rejects a string, at any depth."""
    for path, text in _texts("", fields):
        if fault := text_fault(text):
            raise InvalidRequest(path, fault)


def _texts(path: str, value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _texts(f"{path}.{name}" if path else str(name), inner)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _texts(f"{path}[{index}]", inner)


def _path(location: tuple[int | str, ...]) -> str:
    path = ""
    for step in location:
        if isinstance(step, int):
            path += f"[{step}]"
        elif step not in _TAGS:
            path += f".{shown(step)}" if path else shown(step)
    return path


def _problem(error: ErrorDetails) -> str:
    """Pydantic's message may repeat the value, such as a document."""
    context = error.get("ctx", {})
    if error["type"] == "string_type" and error["loc"][-1] == "string":
        return "must be a string or an object"
    problems = {
        "missing": "is required",
        "string_type": "must be a string",
        "int_type": "must be a whole number",
        "float_type": "must be a number",
        "finite_number": "must be a finite number",
        "bool_type": "must be true or false",
        "list_type": "must be a list",
        "model_type": "must be an object",
        "pair": "must be a list of exactly two strings: a query and a passage",
        "texts": "must be a string or a list of strings",
        "extra_forbidden": "is not a known field",
        "too_short": "must not be empty",
        "too_long": f"must have at most {context.get('max_length')} entries",
        "string_too_short": "must not be empty",
        "string_too_long": f"must have at most {context.get('max_length')} characters",
        "greater_than_equal": f"must be at least {context.get('ge')}",
        "less_than_equal": f"must be at most {context.get('le')}",
        "literal_error": f"must be {context.get('expected')}".replace("True", "true"),
    }
    return problems.get(error["type"], "is not valid")
