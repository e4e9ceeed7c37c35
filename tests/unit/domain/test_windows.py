"""The division of a document's tokens into windows."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.domain.windows import count, plan

rooms = st.integers(1, 600)
unhurried = settings(deadline=None)


@unhurried
@given(tokens=st.integers(0, 5_000), room=rooms)
def test_windows_cover_the_document_and_fit_the_model(tokens: int, room: int) -> None:
    windows = plan(tokens, room)

    assert windows[0].start == 0
    assert windows[-1].stop == tokens
    assert all(len(window) <= room for window in windows)
    assert len(windows) == count(tokens, room)


@unhurried
@given(tokens=st.integers(0, 5_000), room=st.integers(4, 600))
def test_neighbours_share_a_quarter_of_a_window(tokens: int, room: int) -> None:
    windows = plan(tokens, room)

    for one, other in pairwise(windows):
        assert one.stop - other.start == len(one) // 4 > 0
        assert other.stop > one.stop, "each window has something new"


@unhurried
@given(tokens=st.integers(0, 600), room=rooms)
def test_a_document_that_fits_is_one_window(tokens: int, room: int) -> None:
    assert (plan(tokens, room) == [range(tokens)]) == (tokens <= room)


@unhurried
@given(tokens=st.integers(0, 5_000), more=st.integers(0, 500), room=rooms)
def test_more_tokens_never_have_fewer_windows(tokens: int, more: int, room: int) -> None:
    """The bound that is reserved relies on it."""
    assert count(tokens, room) <= count(tokens + more, room)
