"""Answers rendered result by result are the JSON that pydantic would render at once."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from typing_extensions import TypedDict  # Pydantic needs it until Python 3.12.

from serve_app.protocols.rendering import json_list, with_results

texts = st.text() | st.just('"results":[]') | st.just('\\"results":[],')


class Result(TypedDict):
    text: str


class Answer(BaseModel):
    model: str
    results: list[Result]
    warnings: list[str]


@given(texts, st.lists(st.builds(Result, text=texts)), texts)
def test_the_results_are_in_their_place(model: str, results: list[Result], warning: str) -> None:
    frame = Answer(model=model, results=[], warnings=[warning])
    whole = Answer(model=model, results=results, warnings=[warning])

    assert with_results(frame, "results", results).decode() == whole.model_dump_json()


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_list_is_rendered_alone(count: int) -> None:
    expected: list[dict[str, Any]] = [{"text": "a"}] * count

    assert json.loads(json_list([Result(text="a")] * count)) == expected
