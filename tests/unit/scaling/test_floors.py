"""Scheduled minimum numbers of replicas."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from serve_app.scaling.floors import Floor, floor_at

BERLIN = "Europe/Berlin"
OFFICE = Floor.of("08:45", "19:00", 6, ["mon", "tue", "wed", "thu", "fri"], BERLIN)
NIGHT = Floor.of("22:00", "02:00", 2, ["sat"])


def at(text: str, zone: str = BERLIN) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        ("2026-11-30T08:44:59", 0),
        ("2026-11-30T08:45:00", 6),
        ("2026-11-30T18:59:59", 6),
        ("2026-11-30T19:00:00", 0),
        ("2026-11-29T12:00:00", 0),
        ("2026-07-01T08:45:00", 6),
    ],
    ids=["before", "begins", "lasts", "ends", "on a Sunday", "in summer time"],
)
def test_a_floor_holds_during_its_hours(moment: str, expected: int) -> None:
    assert floor_at([OFFICE, NIGHT], at(moment)) == expected


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        ("2026-11-28T21:59:59", 0),
        ("2026-11-28T22:00:00", 2),
        ("2026-11-29T01:59:59", 2),
        ("2026-11-29T02:00:00", 0),
        ("2026-11-29T22:30:00", 0),
        ("2026-11-28T01:00:00", 0),
    ],
)
def test_a_floor_across_midnight_belongs_to_the_day_on_which_it_begins(
    moment: str, expected: int
) -> None:
    assert floor_at([NIGHT], at(moment, "UTC")) == expected


def test_the_highest_floor_counts() -> None:
    noon = Floor.of("11:00", "13:00", 8, time_zone=BERLIN)

    assert floor_at([OFFICE, noon], at("2026-11-30T12:00:00")) == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"since": "8:45 am", "until": "19:00", "replicas": 1}, "8:45 am"),
        ({"since": "08:45", "until": "19:00", "replicas": 0}, "at least 1"),
        ({"since": "08:45", "until": "19:00", "replicas": 1, "days": ["monday"]}, "monday"),
        ({"since": "08:45", "until": "19:00", "replicas": 1, "time_zone": "Mars"}, "Mars"),
    ],
)
def test_a_wrong_floor_is_refused_by_its_value(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Floor.of(**arguments)  # type: ignore[arg-type]  # values from a config file
