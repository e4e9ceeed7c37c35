"""The wire formats of other servers: no body breaks a parser, every text gets its own score."""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serve_app.domain.errors import InvalidRequest, TooLarge
from serve_app.domain.job import TextPair
from serve_app.domain.model import Truncation
from serve_app.domain.ranking import rank, relevance_score
from serve_app.domain.units import Instant, ModelId, RequestId, Seconds
from serve_app.protocols.infinity import INFINITY, InfinityRequest
from serve_app.protocols.limits import Limits
from serve_app.protocols.nvidia import NVIDIA, NvidiaRequest
from serve_app.protocols.rerank import RERANK
from serve_app.protocols.string_ranking import ParsedRanking, RankingRequest
from serve_app.protocols.tei import RERANK_OR_TEI, TEI, TeiRequest
from serve_app.protocols.voyage import VOYAGE, VoyageRequest
from serve_app.protocols.wire_format import ANSWER_OPTIONS, Envelope, WireFormat, read_fields
from tests.support.fakes import an_outcome

LIMITS = Limits(10_000_000, 1_000, 100, Seconds(30), Seconds(60), Seconds(10))
ENVELOPE = Envelope(RequestId("rr_1"), Seconds(30), Instant(130))
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=50)


@dataclass(frozen=True)
class Family:
    """One wire format, with what its requests and answers call things."""

    wire_format: WireFormat[ParsedRanking]
    kind: type[RankingRequest]
    body: Callable[[str, list[str]], dict[str, Any]]
    list_name: str
    top: str
    results: Callable[[Any], list[dict[str, Any]]]
    score: str


def _with_documents(query: str, texts: list[str]) -> dict[str, Any]:
    return {"query": query, "documents": texts}


FAMILIES = {
    "tei": Family(
        TEI,
        TeiRequest,
        lambda query, texts: {"query": query, "texts": texts},
        "texts",
        "top_n",
        lambda answer: answer,
        "score",
    ),
    "infinity": Family(
        INFINITY,
        InfinityRequest,
        _with_documents,
        "documents",
        "top_n",
        lambda answer: answer["results"],
        "relevance_score",
    ),
    "nvidia": Family(
        NVIDIA,
        NvidiaRequest,
        lambda query, texts: {
            "query": {"text": query},
            "passages": [{"text": text} for text in texts],
        },
        "passages",
        "top_n",
        lambda answer: answer["rankings"],
        "logit",
    ),
    "voyage": Family(
        VOYAGE,
        VoyageRequest,
        _with_documents,
        "documents",
        "top_k",
        lambda answer: answer["data"],
        "relevance_score",
    ),
}
each_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=6,
)
texts = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))


def resolve(name: str | None) -> ModelId:
    return ModelId(name or "default")


def parsed(family: Family, body: dict[str, Any]) -> ParsedRanking:
    fields = read_fields(json.dumps(body).encode())
    return family.wire_format.parse(fields, LIMITS, ENVELOPE, resolve)


@each_family
@unhurried
@given(data=st.data())
def test_no_json_crashes_a_parser(family: Family, data: st.DataObject) -> None:
    names = st.sampled_from(sorted(family.kind.model_fields)) | st.text()
    fields = data.draw(st.dictionaries(names, json_values))

    with suppress(InvalidRequest, TooLarge):
        parsed(family, family.body("q", ["a"]) | fields)


@each_family
@unhurried
@given(documents=st.lists(texts, min_size=1, max_size=20), data=st.data())
def test_every_text_has_its_score_at_its_index(
    family: Family, documents: list[str], data: st.DataObject
) -> None:
    count = len(documents)
    logits = data.draw(st.lists(st.floats(-1e6, 1e6), min_size=count, max_size=count))
    top_n = data.draw(st.none() | st.integers(1, count + 1))

    request = parsed(family, family.body("q", documents) | {family.top: top_n})
    answer = json.loads(family.wire_format.render(an_outcome(logits, top_n), request))

    assert request.job.pairs == tuple(TextPair("q", document) for document in documents)
    assert request.job.top_n == top_n
    shown = logits if family.score == "logit" else [relevance_score(logit) for logit in logits]
    results = [(each["index"], each[family.score]) for each in family.results(answer)]
    assert results == [(index, shown[index]) for index in rank(logits, top_n)]


@each_family
def test_a_field_that_would_change_the_answer_is_refused_by_name(family: Family) -> None:
    for name in ANSWER_OPTIONS:
        if name not in family.kind.model_fields:
            with pytest.raises(InvalidRequest) as refusal:
                parsed(family, family.body("q", ["a"]) | {name: "anything"})
            assert refusal.value.where == name


@each_family
def test_a_value_without_effect_causes_a_warning(family: Family) -> None:
    harmless = {
        name: values[0]
        for name, values in ANSWER_OPTIONS.items()
        if values and name not in family.kind.model_fields
    }

    warnings = parsed(family, family.body("q", ["a"]) | harmless).warnings

    assert len(warnings) == len(harmless)


@each_family
def test_exactly_the_maximum_of_texts_is_accepted(family: Family) -> None:
    assert len(parsed(family, family.body("q", ["d"] * 1_000)).job.pairs) == 1_000

    with pytest.raises(TooLarge) as refusal:
        parsed(family, family.body("q", ["d"] * 1_001))
    assert refusal.value.where == family.list_name


@each_family
def test_an_error_names_the_text_that_is_not_unicode(family: Family) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        parsed(family, family.body("q", ["a", "\ud83d"]))

    assert refusal.value.where is not None
    assert refusal.value.where.startswith(f"{family.list_name}[1]")


@pytest.mark.parametrize(
    ("name", "truncation"),
    [
        ("tei", Truncation.LONGEST_FIRST),
        ("infinity", Truncation.LONGEST_FIRST),
        ("nvidia", Truncation.ONLY_DOCUMENT),
        ("voyage", Truncation.ONLY_DOCUMENT),
    ],
)
def test_a_client_may_choose_how_pairs_are_cut(name: str, truncation: Truncation) -> None:
    family = FAMILIES[name]
    body = family.body("q", ["a"])

    assert parsed(family, body).job.truncation == truncation
    assert parsed(family, body | {"truncation_strategy": None}).job.truncation == truncation
    for each in Truncation:
        assert parsed(family, body | {"truncation_strategy": each}).job.truncation == each


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"query": "q", "texts": ["a"]}, TEI),
        ({"texts": []}, TEI),
        ({"query": "q", "documents": ["a"]}, RERANK),
        ({"query": "q", "documents": ["a"], "texts": ["b"]}, RERANK),
        ({}, RERANK),
    ],
)
def test_the_texts_decide_the_format_at_the_root(
    fields: dict[str, object], expected: WireFormat[Any]
) -> None:
    assert RERANK_OR_TEI.of(fields) is expected
