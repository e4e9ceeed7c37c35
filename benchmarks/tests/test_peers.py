"""The arithmetic of the comparison with a peer."""

from collections.abc import Mapping

import pytest

from benchmarks.service.peer_server import last_line
from benchmarks.service.peers import (
    FIFO,
    FIVE,
    LARGE,
    MANY,
    MIXED,
    OURS,
    PEER,
    SMALL,
    STEADY,
    WEIGHT,
    WEIGHTS,
    Measured,
    differ_by,
    ratios,
    rows,
)
from testkit.load import ALL
from testkit.load_figures import GroupFigures


def measured(
    server: str, load: str, speeds: Mapping[str, tuple[float, float]], turn: int = 1
) -> Measured:
    """Return a load with groups that have these documents/s and p99."""
    groups = [
        GroupFigures(name, 1, 1, 9, 0, speed, p99 / 2, p99, p99)
        for name, (speed, p99) in speeds.items()
    ]
    return Measured(turn, server, load, 10.0, groups, 1.0, 100)


def mixed(server: str, large: float, small: float, p99: float) -> Measured:
    return measured(
        server,
        MIXED,
        {LARGE: (large, 9_000), SMALL: (small, p99), ALL: (large + small, 1)},
    )


def test_ratios_divide_our_figures_by_theirs() -> None:
    found = ratios(
        [
            measured(OURS, MANY, {ALL: (300, 10)}),
            measured(PEER, MANY, {ALL: (150, 10)}),
            measured(OURS, FIVE, {ALL: (30, 100)}),
            measured(PEER, FIVE, {ALL: (30, 160)}),
            mixed(OURS, 200, 40, 600),
            mixed(FIFO, 250, 5, 6_000),
            mixed(PEER, 140, 10, 8_000),
            measured(OURS, STEADY, {LARGE: (240, 9_000)}),
            measured(FIFO, STEADY, {LARGE: (250, 9_000)}),
            measured(OURS, WEIGHTS, {WEIGHT[1]: (76, 1), WEIGHT[3]: (224, 1), ALL: (300, 1)}),
        ]
    )

    assert found.documents_per_s_ratio == 2
    assert found.mixed_documents_per_s_ratio == 1.6
    assert found.small_p99_ratio == 0.075
    assert found.one_client_5_documents_p50_ms == 50
    assert found.peer_one_client_5_documents_p50_ms == 80
    assert found.large_against_fifo == 0.96
    assert found.all_against_fifo == pytest.approx(240 / 255, abs=0.001)
    assert found.heavy_share == pytest.approx(224 / 300, abs=0.001)


def test_the_medians_of_several_turns_are_compared() -> None:
    speeds = {OURS: (300, 310, 20), PEER: (100, 900, 110)}
    loads = [
        measured(server, MANY, {ALL: (speed, 1)}, turn)
        for server, each in speeds.items()
        for turn, speed in enumerate(each)
    ]

    assert ratios(loads).documents_per_s_ratio == pytest.approx(300 / 110, abs=0.001)


def test_without_a_peer_there_are_no_ratios() -> None:
    loads = [measured(OURS, MANY, {ALL: (300, 10)}), mixed(OURS, 200, 40, 600)]

    found = ratios(loads)

    assert found.documents_per_s_ratio is None
    assert found.small_p99_ratio is None
    assert found.large_against_fifo is None
    assert found.heavy_share is None
    assert ["8 clients x 50", ALL, "documents/s", "300", "-", "-", "-"] in list(rows(loads))


def test_rows_show_the_servers_side_by_side() -> None:
    loads = [mixed(OURS, 200, 40, 600), mixed(FIFO, 250, 5, 6_000), mixed(PEER, 160, 10, 8_000)]

    shown = list(rows(loads))

    assert [MIXED, LARGE, "documents/s", "200", "250", "160", "1.25"] in shown
    assert [MIXED, SMALL, "p99 ms", "600", "6,000", "8,000", "0.075"] in shown
    assert [MIXED, "", "memory MiB", "100", "100", "100", "1"] in shown


def test_the_score_difference_is_the_largest_one() -> None:
    assert differ_by({OURS: [0.5, 0.25], PEER: [0.5, 0.75], FIFO: [9, 9]}) == 0.5
    assert differ_by({OURS: [0.5]}) is None


def test_the_last_line_is_what_a_framed_error_says() -> None:
    assert last_line("a\n╭─ Error ─╮\n│ No such option: --x │\n╰────╯\n") == "No such option: --x"
    assert last_line("\n") == "no output"
