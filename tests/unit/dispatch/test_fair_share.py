"""Scheduling state is bounded by the keys that wait, and by those that left ahead of the rest."""

from serve_app.dispatch.fair_share import FairShares


def remembered(shares: FairShares[str]) -> int:
    return len(shares._left._places) + len(shares._left._heap)


def test_keys_that_join_and_leave_are_not_kept_forever() -> None:
    shares = FairShares[str]()
    shares.join("patient")
    for number in range(1_000):
        shares.join(f"hasty {number}")
        shares.leave(f"hasty {number}")

    assert remembered(shares) == 0


def test_a_key_that_was_ahead_is_kept_once_however_often_it_returns() -> None:
    shares = FairShares[str]()
    shares.join("served")
    shares.join("patient")
    shares.serve("served", 100)
    for _ in range(1_000):
        shares.leave("served")
        shares.join("served")
    shares.leave("served")

    assert remembered(shares) < 50
    shares.join("served")
    assert shares.first() == "patient"
    shares.serve("patient", 99)
    assert shares.first() == "patient", "the other one had more already"
