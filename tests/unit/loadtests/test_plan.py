"""The options define a load, and invalid ones are refused."""

import argparse
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadtests.lengths import OTHER_TOKENS, lengths
from loadtests.options import add_options, plan_of
from loadtests.plan import Plan, shares
from loadtests.traffic import Bodies


def plan(*arguments: str) -> Plan:
    parser = argparse.ArgumentParser()
    parser.add_argument("--run-time", type=float)
    add_options(parser)
    return plan_of(parser.parse_args(arguments))


def test_options_become_a_plan() -> None:
    chosen = plan("--rate", "8", "--sizes", "5:3,50:1", "--cv", "3", "--run-time", "30")

    assert chosen.sizes == (("5", 0.75), ("50", 0.25))
    assert chosen.classes == ["5 documents", "50 documents"]
    assert len(chosen.schedule()) == pytest.approx(240, abs=120)


def test_a_plan_reaches_other_processes_as_json(tmp_path: Path) -> None:
    chosen = plan("--tiers", "default:4,flex:1", "--trace", str(tmp_path / "trace.csv"))

    assert Plan.from_json(json.loads(json.dumps(chosen.as_json()))) == chosen


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"rate_per_s": 0}, "rate must be positive"),
        ({"cv": -1}, "cannot be negative"),
        ({"shape": "saw"}, "shape must be one of"),
        ({"peak_factor": 0.5}, "at least 1"),
        ({"warm_up_s": 60}, "warm-up must be shorter"),
        ({"sizes": (("many", 1.0),)}, "positive numbers of documents"),
        ({"tiers": (("gold", 1.0),)}, "tiers are default, priority, flex"),
        ({"pair_tokens": "62,114,3"}, "neither a length"),
        ({"pair_tokens": "5"}, "at least 11 tokens"),
        ({"pair_tokens": "no-such-file"}, "cannot be read"),
    ],
)
def test_invalid_values_are_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Plan(**changes)


@pytest.mark.parametrize("text", ["", "5:x", "5:0", "5:-1", "5,5", "5:nan", "5:inf"])
def test_invalid_shares_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"names|finite"):
        shares(text)


def test_tenants_get_equal_and_tiers_their_shares() -> None:
    tenants, tiers = plan("--tiers", "default:3,flex:1").tenants_and_tiers(10_000, tenants=4)

    assert np.bincount(tenants) / 10_000 == pytest.approx(0.25, abs=0.02)
    assert np.mean(tiers == 1) == pytest.approx(0.25, abs=0.02)


def test_lengths_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "lengths.txt"
    file.write_text("30\n300\n")
    source = random.Random(1)

    drawn = {lengths(str(file)).draw(source) + OTHER_TOKENS for _ in range(50)}

    assert drawn == {30, 300}


def test_bodies_are_requests_with_texts_of_the_given_length() -> None:
    bodies = Bodies(1, "62,114", "embedded")

    request = json.loads(bodies.body(5_000, "flex", 200))

    assert request["model"] == "embedded"
    assert request["service_tier"] == "flex"
    assert len(request["documents"]) == 5_000
    words = {len(document.split()) for document in request["documents"]}
    assert words == {round((200 - OTHER_TOKENS) / 1.01)}


def test_a_body_without_options_leaves_the_choice_to_the_server() -> None:
    assert json.loads(Bodies(1, "62,114", None).body(3)).keys() == {"query", "documents"}
