"""The default wire format: no body breaks the parser, and answers keep the caller's indices."""

import json
import math
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from serve_app.domain.errors import InvalidRequest, TooLarge
from serve_app.domain.job import pairs_of
from serve_app.domain.model import Truncation
from serve_app.domain.ranking import relevance_score
from serve_app.domain.units import Instant, ModelId, RequestId, Seconds
from serve_app.protocols.documents import DEPTH_MAX
from serve_app.protocols.limits import Limits
from serve_app.protocols.rerank import IGNORED, ParsedRerank, parse, render
from serve_app.protocols.rerank_schema import RerankRequest
from serve_app.protocols.wire_format import ANSWER_OPTIONS, WARNINGS_MAX, Envelope, read_fields
from tests.support.fakes import an_outcome

UNSUPPORTED = {
    name: harmless
    for name, harmless in ANSWER_OPTIONS.items()
    if name not in RerankRequest.model_fields and name not in IGNORED
}
LIMITS = Limits(10_000_000, 1_000, 100, Seconds(30), Seconds(60), Seconds(10))
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

ENVELOPE = Envelope(RequestId("rr_1"), Seconds(30), Instant(130))


def _json(floats: st.SearchStrategy[float]) -> st.SearchStrategy[Any]:
    return st.recursive(
        st.none() | st.booleans() | st.integers() | floats | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=6,
    )


json_values = _json(st.floats())
finite_json_values = _json(st.floats(allow_nan=False, allow_infinity=False))
field_names = st.sampled_from(
    ["model", "query", "documents", "top_n", "return_documents", "raw_scores"]
)

texts = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))
document_lists = st.lists(texts, min_size=1, max_size=40)


def resolve(name: str | None) -> ModelId:
    return ModelId(name or "default")


def parsed(**fields: object) -> ParsedRerank:
    body = {"query": "q", "documents": ["a"]} | fields
    return parse(read_fields(json.dumps(body).encode()), LIMITS, ENVELOPE, resolve)


def refused(body: bytes) -> InvalidRequest | TooLarge | None:
    """Return the parser's error for ``body``; any exception but its own two is a failure."""
    try:
        parse(read_fields(body), LIMITS, ENVELOPE, resolve)
    except (InvalidRequest, TooLarge) as error:
        return error
    return None


@unhurried
@given(st.binary())
@example(b"\xff\xfe{}")
@example(b'{"documents": [{"text": "\\ud800"}], "query": "\\udfff"}')
@example(b'{"\\ud800": 1, "query": "q", "documents": ["a"]}')
@example(b"[" * 100_000)
@example(b'{"a":' * 100_000)
def test_no_bytes_crash_the_parser(body: bytes) -> None:
    refused(body)


@settings(unhurried, max_examples=50)
@given(st.dictionaries(field_names, json_values | st.lists(json_values, min_size=1)))
def test_no_json_crashes_the_parser(fields: dict[str, Any]) -> None:
    refused(json.dumps({"query": "q", "documents": ["a"]} | fields).encode())


@unhurried
@given(st.text(max_size=20), finite_json_values)
def test_no_unknown_field_is_refused(name: str, value: object) -> None:
    body = json.dumps({"query": "q", "documents": ["a"], f"x-{name}": value})

    assert refused(body.encode()) is None


@unhurried
@given(document_lists, st.data())
def test_the_answer_keeps_the_callers_indices(documents: list[str], data: st.DataObject) -> None:
    """The documents may be empty or equal, and in either form."""
    logits = data.draw(
        st.lists(st.floats(-1e6, 1e6), min_size=len(documents), max_size=len(documents)),
        label="logits",
    )
    top_n = data.draw(st.none() | st.integers(1, 50), label="top_n")
    as_objects = data.draw(st.lists(st.booleans(), min_size=40, max_size=40), label="as_objects")
    sent = [
        {"text": text} if as_object else text
        for text, as_object in zip(documents, as_objects, strict=False)
    ]

    request = parsed(documents=sent, top_n=top_n, return_documents=True)
    answer = json.loads(render(an_outcome(logits, request.job.top_n), request))

    assert request.job.pairs == pairs_of("q", documents)
    results = answer["results"]
    assert len(results) == min(top_n or len(documents), len(documents))
    for result in results:
        assert result["document"] == {"text": documents[result["index"]]}
        assert result["relevance_score"] == relevance_score(logits[result["index"]])
    scores = [result["relevance_score"] for result in results]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.slow  # Seconds of generated examples.
@unhurried
@given(st.lists(st.dictionaries(st.text(), finite_json_values), min_size=1, max_size=5))
def test_an_object_comes_back_whole(objects: list[dict[str, Any]]) -> None:
    sent = [fields | {"text": "a"} for fields in objects]

    request = parsed(documents=sent, return_documents=True)
    answer = json.loads(render(an_outcome([0.0] * len(sent)), request))

    assert [result["document"] for result in answer["results"]] == sent


def test_the_deepest_object_that_is_accepted_comes_back() -> None:
    def nested(levels: int) -> dict[str, Any]:
        value: Any = "a"
        for _ in range(levels):
            value = {"b": [value]}
        return {"text": "a", "field": value}

    request = parsed(documents=[nested(DEPTH_MAX // 2)], return_documents=True)
    answer = json.loads(render(an_outcome([0.0]), request))

    assert answer["results"][0]["document"] == nested(DEPTH_MAX // 2)
    with pytest.raises(InvalidRequest):
        parsed(documents=[nested(DEPTH_MAX // 2 + 1)])


@unhurried
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
def test_raw_scores_are_the_logits_exactly(logits: list[float]) -> None:
    answer = json.loads(render(an_outcome(logits), parsed(raw_scores=True)))

    for result in answer["results"]:
        assert result["relevance_score"] == logits[result["index"]]


@pytest.mark.parametrize("raw_scores", [True, False])
@unhurried
@given(logits=st.lists(st.floats(-50, 50), min_size=1, max_size=20), data=st.data())
def test_results_below_the_lowest_score_are_left_out(
    raw_scores: bool, logits: list[float], data: st.DataObject
) -> None:
    """The limit is compared with the score that the client would see, equal ones stay."""
    top_n = data.draw(st.none() | st.integers(1, 20))
    everything = parsed(raw_scores=raw_scores, top_n=top_n)
    ranked = json.loads(render(an_outcome(logits, top_n), everything))["results"]
    limits = st.sampled_from([result["relevance_score"] for result in ranked])
    min_score = data.draw(limits | st.floats(-1, 1))

    request = parsed(raw_scores=raw_scores, top_n=top_n, min_score=min_score)
    results = json.loads(render(an_outcome(logits, top_n), request))["results"]

    assert results == [result for result in ranked if result["relevance_score"] >= min_score]


@pytest.mark.parametrize(("documents", "units"), [(1, 1), (100, 1), (101, 2), (1_000, 10)])
def test_search_units_are_rounded_up_hundreds(documents: int, units: int) -> None:
    answer = json.loads(render(an_outcome([0.0] * documents), parsed()))

    assert answer["usage"]["search_units"] == units
    assert answer["meta"]["billed_units"]["search_units"] == units
    assert isinstance(answer["meta"]["billed_units"]["search_units"], int)


def test_the_job_includes_the_request_metadata() -> None:
    job = parsed(model="m", top_n=3, truncation_strategy="longest_first").job

    assert Envelope(job.request_id, job.timeout_s, job.deadline) == ENVELOPE
    assert (job.model, job.top_n) == ("m", 3)
    assert job.truncation is Truncation.LONGEST_FIRST


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_a_field_that_would_change_the_answer_is_refused_by_name(name: str) -> None:
    for value in ("anything", False, 1, 0.5, {"mode": "enabled"}):
        if any(value is harmless for harmless in UNSUPPORTED[name]):
            continue
        with pytest.raises(InvalidRequest) as refusal:
            parsed(**{name: value})

        assert refusal.value.where == name


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name, harmless in UNSUPPORTED.items() for value in harmless],
)
def test_a_value_without_effect_causes_a_warning(name: str, value: object) -> None:
    (warning,) = parsed(**{name: value}).warnings

    assert f"'{name}'" in warning


@pytest.mark.parametrize(("value", "tokens"), [(None, None), (0, None), (1, 1), (4_096, 4_096)])
def test_the_job_has_the_limit_on_the_tokens_of_a_document(
    value: int | None, tokens: int | None
) -> None:
    request = parsed(max_tokens_per_doc=value)

    assert request.job.document_tokens_max == tokens
    assert request.warnings == ()


def test_limits_count_characters_rather_than_bytes() -> None:
    assert parsed(query="空" * 100).job.pairs[0].query == "空" * 100

    with pytest.raises(InvalidRequest):
        parsed(query="空" * 101)


def test_exactly_the_maximum_of_documents_is_accepted() -> None:
    assert len(parsed(documents=["d"] * 1_000).job.pairs) == 1_000

    with pytest.raises(TooLarge):
        parsed(documents=["d"] * 1_001)


def test_a_byte_order_mark_is_skipped() -> None:
    assert refused(b'\xef\xbb\xbf{"query": "q", "documents": ["a"]}') is None


def test_warnings_name_each_field_once_and_are_bounded() -> None:
    documents = [{"text": "a", f"extra{number}": 1} for number in range(100)] * 2

    warnings = parsed(documents=documents).warnings

    assert len(warnings) == len(set(warnings)) == WARNINGS_MAX + 1
    assert "documents[].extra0" in warnings[0]
    assert "..." in warnings[-1]


def test_a_long_unknown_name_is_shortened_in_its_warning() -> None:
    (warning,) = parsed(**{"x" * 10_000: 1}).warnings

    assert len(warning) < 150


def test_the_answer_is_valid_json_for_scores_of_any_size() -> None:
    logits = [math.pi * 1e300, -1e-300, 5e-324, 0.1]

    answer = json.loads(render(an_outcome(logits), parsed(raw_scores=True)))

    assert [result["relevance_score"] for result in answer["results"]] == sorted(
        logits, reverse=True
    )
