"""The wire format of ``/v1/score``: no body breaks the parser, every pair gets its own score."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from serve_app.domain.errors import InvalidRequest, TooLarge
from serve_app.domain.job import TextPair
from serve_app.domain.model import Outcome, RankedDocument
from serve_app.domain.ranking import rank, relevance_score
from serve_app.domain.units import Credits, Instant, ModelId, Moment, RequestId, Seconds, Tokens
from serve_app.protocols.limits import Limits
from serve_app.protocols.score import FORMS, ParsedScore, parse, render
from serve_app.protocols.score_schema import ScoreRequest
from serve_app.protocols.wire_format import ANSWER_OPTIONS, Envelope, read_fields

LIMITS = Limits(10_000_000, 1_000, 100, Seconds(30), Seconds(60), Seconds(10))
ENVELOPE = Envelope(RequestId("rr_1"), Seconds(30), Instant(130))
UNSUPPORTED = {
    name: harmless
    for name, harmless in ANSWER_OPTIONS.items()
    if name not in ScoreRequest.model_fields
}
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=6,
)
field_names = st.sampled_from(
    ["model", "pairs", "raw_scores", "service_tier", "top_n", "text_1", "text_2", "queries"]
)
texts = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))
queries = texts.filter(lambda text: bool(text.strip()) and len(text) <= 100)
pair_lists = st.lists(st.tuples(queries, texts), min_size=1, max_size=40)


def resolve(name: str | None) -> ModelId:
    return ModelId(name or "default")


def parsed(**fields: object) -> ParsedScore:
    body = {"pairs": [["q", "a"]]} | fields
    return parse(read_fields(json.dumps(body).encode()), LIMITS, ENVELOPE, resolve)


def parsed_form(**fields: object) -> ParsedScore:
    return parse(read_fields(json.dumps(fields).encode()), LIMITS, ENVELOPE, resolve)


def outcome(logits: list[float]) -> Outcome:
    return Outcome(
        request_id=RequestId("rr_1"),
        created_at=Moment(1_764_374_400_500),
        model=ModelId("default"),
        results=tuple(RankedDocument(i, logits[i], truncated=False) for i in rank(logits, None)),
        documents=len(logits),
        tokens=Tokens(7),
        charge=Credits(8),
        queue_wait_s=Seconds(0),
        run_s=Seconds(0),
    )


def parse_or_refuse(body: bytes) -> None:
    """Parse ``body``; any exception but the parser's own two is a failure."""
    with suppress(InvalidRequest, TooLarge):
        parse(read_fields(body), LIMITS, ENVELOPE, resolve)


@unhurried
@given(st.binary())
@example(b'{"pairs": [["\\udfff", "a"]]}')
@example(b'{"pairs": ' + b"[" * 100_000)
def test_no_bytes_crash_the_parser(body: bytes) -> None:
    parse_or_refuse(body)


@settings(unhurried, max_examples=50)
@given(st.dictionaries(field_names, json_values | st.lists(st.lists(json_values), min_size=1)))
def test_no_json_crashes_the_parser(fields: dict[str, Any]) -> None:
    parse_or_refuse(json.dumps({"pairs": [["q", "a"]]} | fields).encode())


@unhurried
@given(pair_lists, st.booleans(), st.data())
def test_every_pair_has_its_score_at_its_index(
    pairs: list[tuple[str, str]], raw: bool, data: st.DataObject
) -> None:
    logits = data.draw(
        st.lists(st.floats(-1e6, 1e6), min_size=len(pairs), max_size=len(pairs)), label="logits"
    )

    request = parsed(pairs=pairs, raw_scores=raw)
    answer = json.loads(render(outcome(logits), request))

    assert request.job.pairs == tuple(TextPair(*pair) for pair in pairs)
    assert [each["index"] for each in answer["data"]] == list(range(len(pairs)))
    assert [each["score"] for each in answer["data"]] == [
        logit if raw else relevance_score(logit) for logit in logits
    ]


def test_a_job_names_its_queries_by_their_pairs() -> None:
    job = parsed(pairs=[["a", "x"], ["b", "x"], ["a", "y"], ["c", "x"]]).job

    assert job.queries == {"a": 0, "b": 1, "c": 3}
    assert job.query_path(3) == "pairs[3][0]"


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_a_field_that_would_change_the_scores_is_refused_by_name(name: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        parsed(**{name: "anything"})

    assert refusal.value.where == name


@pytest.mark.parametrize("form", FORMS, ids="-".join)
def test_each_form_accepts_one_query_or_one_for_each_passage(form: tuple[str, ...]) -> None:
    first, second = form if len(form) == 2 else ("text_1", "text_2")

    one = parsed_form(**{first: "q", second: ["a", "b"]})
    each = parsed_form(**{first: ["q", "r"], second: ["a", "b"]})

    assert one.job.pairs == (TextPair("q", "a"), TextPair("q", "b"))
    assert one.job.query_path(1) == first
    assert each.job.pairs == (TextPair("q", "a"), TextPair("r", "b"))
    assert each.job.query_path(1) == f"{first}[1]"


@pytest.mark.parametrize(("queries", "passages"), [(2, 1), (2, 3), (3, 2)])
def test_other_numbers_of_queries_and_passages_are_refused(queries: int, passages: int) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        parsed_form(text_1=["q"] * queries, text_2=["a"] * passages)

    assert refusal.value.where == "text_1"
    assert "text_2" in refusal.value.problem


@pytest.mark.parametrize("form", [form for form in FORMS if form != ("pairs",)], ids="-".join)
def test_two_forms_in_one_request_are_refused(form: tuple[str, ...]) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        parsed(**dict.fromkeys(form, "a"))

    assert refusal.value.where == form[0]


def test_each_list_of_texts_has_the_maximum_of_pairs() -> None:
    assert len(parsed_form(text_1="q", text_2=["d"] * 1_000).job.pairs) == 1_000

    for too_many in ({"text_2": ["d"] * 1_001}, {"text_1": ["q"] * 1_001}):
        with pytest.raises(TooLarge):
            parsed_form(**({"text_1": "q", "text_2": ["d"]} | too_many))


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name, harmless in UNSUPPORTED.items() for value in harmless],
)
def test_a_value_without_effect_causes_a_warning(name: str, value: object) -> None:
    (warning,) = parsed(**{name: value}).warnings

    assert f"'{name}'" in warning


def test_exactly_the_maximum_of_pairs_is_accepted() -> None:
    assert len(parsed(pairs=[["q", "d"]] * 1_000).job.pairs) == 1_000

    with pytest.raises(TooLarge):
        parsed(pairs=[["q", "d"]] * 1_001)


def test_limits_count_the_characters_of_each_query() -> None:
    assert len(parsed(pairs=[["空" * 100, "d"], ["é" * 100, "d"]]).job.queries) == 2

    with pytest.raises(InvalidRequest) as refusal:
        parsed(pairs=[["q", "d"], ["空" * 101, "d"]])
    assert refusal.value.where == "pairs[1][0]"
