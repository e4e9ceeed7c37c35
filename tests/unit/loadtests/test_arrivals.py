"""Schedules have the rate, burstiness and shape that the options ask for."""

from pathlib import Path

import numpy as np
import pytest

from loadtests.arrivals import generated, replayed, unit_arrivals
from loadtests.shapes import SHAPES, Shape

CONSTANT = Shape("constant", 1_000, 1)


@pytest.mark.parametrize("cv", [0.5, 1.0, 3.0])
def test_gaps_have_the_rate_and_the_coefficient_of_variation(cv: float) -> None:
    at_s = generated(CONSTANT, [(5, 100.0)], cv, seed=3).at_s
    gaps = np.diff(at_s)

    assert len(at_s) == pytest.approx(100_000, rel=0.03)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.05)


def test_without_variation_gaps_are_equal() -> None:
    gaps = np.diff(generated(CONSTANT, [(5, 4.0)], 0, seed=1).at_s)

    assert gaps == pytest.approx(np.full(3_999, 0.25))


def test_bursts_do_not_raise_the_rate_at_the_start() -> None:
    counts = [len(unit_arrivals(3, 50, np.random.default_rng(seed))) for seed in range(400)]

    assert np.mean(counts) == pytest.approx(50, abs=3)


def test_every_class_has_its_own_rate() -> None:
    schedule = generated(CONSTANT, [(5, 20.0), (50, 5.0)], 1, seed=2)

    assert np.mean(schedule.classes == 0) == pytest.approx(0.8, abs=0.01)
    assert set(schedule.documents[schedule.classes == 1]) == {50}
    assert np.all(np.diff(schedule.at_s) >= 0)


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_changes_the_rate_and_keeps_the_number_of_its_integral(name: str) -> None:
    shape = Shape(name, 1_000, 4)
    at_s = generated(shape, [(5, 50.0)], 0, seed=1).at_s

    assert len(at_s) == pytest.approx(50 * shape.area_s, abs=1)
    assert 0 < at_s[0] < at_s[-1] < 1_000


def rates(name: str, periods: int) -> list[float]:
    """Return the rates of requests in parts of equal length, relative to the given rate."""
    at_s = generated(Shape(name, 1_000, 4), [(5, 100.0)], 0, seed=1).at_s
    counts, _ = np.histogram(at_s, bins=periods, range=(0, 1_000))
    return [round(float(count) * periods / 100_000, 1) for count in counts]


def test_the_shapes_have_their_form() -> None:
    assert rates("ramp", 3) == [1.5, 2.5, 3.5]
    assert rates("step", 5) == [1.0, 1.8, 2.5, 3.2, 4.0]
    assert rates("square", 8) == [1.0, 4.0] * 4
    assert rates("spike", 20) == [1.0] * 9 + [4.0] * 2 + [1.0] * 9
    day = rates("day", 24)
    assert day.index(min(day)) in (3, 4)
    assert day.index(max(day)) in (15, 16)


def trace(folder: Path, text: str) -> Path:
    file = folder / "trace.csv"
    file.write_text(text)
    return file


def test_a_trace_is_replayed_from_its_first_request(tmp_path: Path) -> None:
    file = trace(tmp_path, "at_s,documents,pair_tokens\n100,5,\n100.5,50,512\n130,7,30\n")

    schedule = replayed(file, duration_s=20)

    assert schedule.at_s.tolist() == [0, 0.5]
    assert schedule.documents.tolist() == [5, 50]
    assert schedule.pair_tokens.tolist() == [0, 512]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("at_s\n1\n", "no column 'documents'"),
        ("at_s,documents\n", "no requests"),
        ("at_s,documents\n1,x\n", "cannot be read"),
        ("at_s,documents\n1\n", "cannot be read"),
        ("at_s,documents\n2,5\n1,5\n", "must not decrease"),
        ("at_s,documents\nnan,5\n", "must not decrease"),
        ("at_s,documents,pair_tokens\n1,5,-1\n", "lengths not be negative"),
        ("at_s,documents\n1,0\n", "without documents"),
    ],
)
def test_an_invalid_trace_is_named_with_its_problem(
    tmp_path: Path, text: str, problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        replayed(trace(tmp_path, text), duration_s=20)


def test_a_missing_trace_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no\.csv cannot be read"):
        replayed(tmp_path / "no.csv", duration_s=20)
