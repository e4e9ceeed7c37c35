"""A lab whose start is interrupted leaves no thread that writes to its folder."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event, Thread, Timer

import pytest

from cluster.lab import start


def test_a_thread_whose_start_was_interrupted_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done, may_end = [], Event()
    start_thread = Thread.start

    def interrupted(thread: Thread) -> None:
        start_thread(thread)
        raise SystemExit

    def work() -> None:
        may_end.wait()
        done.append(True)

    def begin() -> None:
        with (
            ThreadPoolExecutor(1, start.THREADS) as threads,
            monkeypatch.context() as patched,
        ):
            patched.setattr(Thread, "start", interrupted)
            threads.submit(work)

    with pytest.raises(SystemExit):
        begin()
    assert not done, "the pool does not wait for it"

    Timer(0.1, may_end.set).start()
    start._wait_for_threads()

    assert done
