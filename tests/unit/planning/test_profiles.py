"""Profiles: their values, and the errors for impossible values."""

from dataclasses import replace
from typing import Any

import pytest

from serve_app.domain.units import Seconds
from serve_app.planning import catalogue
from serve_app.planning.profiles import (
    Basis,
    Database,
    Gateway,
    ProfileError,
    Scorer,
    Traffic,
)

TRAFFIC = Traffic(10, {5: 3, 50: 1}, 60)


def test_the_sizes_are_weights() -> None:
    assert TRAFFIC.shares == {5: 0.75, 50: 0.25}
    assert TRAFFIC.documents_per_request == 16.25
    assert TRAFFIC.documents_per_s == 162.5
    assert TRAFFIC.tokens_per_s == 9_750


@pytest.mark.parametrize(
    "wrong",
    [
        {"requests_per_s": 0},
        {"requests_per_s": float("nan")},
        {"documents": {}},
        {"documents": {0: 1}},
        {"documents": {5: -1}},
        {"pair_tokens": 0},
        {"pair_tokens_cv": 3},
        {"burstiness": 0},
    ],
)
def test_impossible_traffic_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ProfileError):
        replace(TRAFFIC, **wrong)


@pytest.mark.parametrize(
    ("tokens", "speed"), [(10, 300), (16, 300), (40, 200), (64, 100), (500, 100)]
)
def test_the_speed_of_a_scorer_depends_on_the_length(tokens: float, speed: float) -> None:
    scorer = Scorer("some", Basis.MEASURED, "a test", ((16, 300), (64, 100)))

    assert scorer.tokens_per_s(tokens) == speed


def test_impossible_speeds_are_refused() -> None:
    with pytest.raises(ProfileError):
        Scorer("none", Basis.MEASURED, "a test", ())
    with pytest.raises(ProfileError):
        Scorer("none", Basis.MEASURED, "a test", ((67, 0),))
    with pytest.raises(ProfileError):
        Gateway(request_s=Seconds(-1))
    with pytest.raises(ProfileError):
        Database("none", Seconds(0), Seconds(float("inf")), "a test")


def test_a_published_speed_is_that_of_its_source() -> None:
    v100 = catalogue.scorer(catalogue.MINILM, "v100")

    assert v100.basis is Basis.PUBLISHED
    assert v100.tokens_per_s(67) == pytest.approx(960 * 67)


def test_a_scaled_speed_is_marked() -> None:
    t4 = catalogue.scorer(catalogue.BGE, "T4")
    a100 = catalogue.scorer(catalogue.BGE, "A100")

    assert t4.basis is Basis.SCALED
    assert "FlagEmbedding issue 1088" in t4.source
    assert t4.tokens_per_s(512) / a100.tokens_per_s(512) == pytest.approx(65 / 312)
    assert a100.tokens_per_s(512) == pytest.approx(3.5 * 124 * 512)


def test_an_unknown_device_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ProfileError, match="A100, CPU, H100"):
        catalogue.scorer(catalogue.MINILM, "TPU")


def test_the_cheapest_machine_is_first() -> None:
    assert [each.name for each in catalogue.instances("A100")] == [
        "Lambda 8x A100 40 GB",
        "AWS p4d.24xlarge",
    ]
    assert catalogue.instances("T4") == []
