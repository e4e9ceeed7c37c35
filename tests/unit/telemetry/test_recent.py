"""The answers of the last hour by error code."""

from serve_app.telemetry.recent import SLICE_S, SLICES, RecentCodes
from tests.support.fakes import FakeClock


def test_codes_are_counted_most_frequent_first() -> None:
    recent = RecentCodes(FakeClock())
    for code in ("overloaded", "ok", "ok"):
        recent.add(code)

    assert list(recent.counts().items()) == [("ok", 2), ("overloaded", 1)]


def test_codes_are_forgotten_after_an_hour() -> None:
    clock = FakeClock()
    recent = RecentCodes(clock)
    for _ in range(2 * SLICES):
        recent.add("ok")
        clock.advance(SLICE_S)

    assert recent.counts() == {"ok": SLICES - 1}
    clock.advance(SLICES * SLICE_S)
    assert recent.counts() == {}
