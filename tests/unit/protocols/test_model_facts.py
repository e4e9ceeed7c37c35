"""Operators' model cards are checked, and their errors name the field."""

import json
from pathlib import Path

import pytest

from serve_app.engine.model_files import EMBEDDED_CARD
from serve_app.protocols.model_facts import CardError, ModelFacts, facts, parse_card

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples/model-card.yaml"
MEASURED = "benchmarks/results/held-out.json"


@pytest.mark.parametrize("path", [EXAMPLE, EMBEDDED_CARD], ids=lambda path: path.parent.name)
def test_the_cards_of_the_repository_are_valid(path: Path) -> None:
    assert parse_card(path.read_text(encoding="utf-8"))


def test_json_and_yaml_state_the_same() -> None:
    found = parse_card(EXAMPLE.read_text(encoding="utf-8"))

    assert parse_card(json.dumps(found)) == found
    assert facts(found).quality[0].origin == "measured"


def test_a_card_states_only_what_it_names() -> None:
    assert parse_card("license: mit") == {"license": "mit"}
    assert ModelFacts().model_dump(exclude_defaults=True) == {}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "must be a mapping"),
        ("- license", "must be a mapping"),
        ("1: mit", "must be a mapping"),
        ("license: [", "not valid YAML"),
        ("licence: mit", "licence is not a known field"),
        ("license: ''", "license must not be empty"),
        ("license: 3", "license must be a string"),
        ("languages: en", "languages must be a list"),
        ("languages: [no]", r"languages\[0\] must be a string"),
        ("parameters: 22.7", "parameters must be a whole number"),
        ("parameters: 0", "parameters must be at least 1"),
        ("license_url: 'javascript:alert(1)'", "license_url is not valid"),
        ("faq: [{question: Why}]", r"faq\[0\].answer is required"),
        (
            "quality: [{dataset: a, metric: b, value: 1, origin: guessed}]",
            r"quality\[0\].origin must be 'published' or 'measured'",
        ),
    ],
)
def test_a_wrong_card_is_refused_by_field(text: str, says: str) -> None:
    with pytest.raises(CardError, match=says) as refused:
        parse_card(text)

    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("dataset", "collection"),
    [
        ("TREC DL 2020", "trec-dl20-passage"),
        ("TREC DL 2021", "trec-dl21-passage"),
        ("SciFact", "scifact"),
    ],
)
def test_the_figures_of_the_embedded_model_are_the_measured_ones(
    dataset: str, collection: str
) -> None:
    card = facts(parse_card(EMBEDDED_CARD.read_text(encoding="utf-8")))
    (stated,) = (each for each in card.quality if each.dataset.startswith(dataset))
    evaluations = json.loads((ROOT / MEASURED).read_text())
    (measured,) = (
        each["methods"]["embedded"] for each in evaluations if each["collection"] == collection
    )

    assert stated.value == round(measured["ndcg"], 4)
    assert stated.source is not None
    assert MEASURED in stated.source
    assert "{:.4f} to {:.4f}".format(*measured["interval_95"]) in " ".join(stated.source.split())
