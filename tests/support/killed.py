"""Kill a process in the middle of a ledger operation."""

import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import count

PRELUDE = """
import os, signal, sys
from sqlalchemy import Engine, event

url, last = sys.argv[1], int(sys.argv[2])
seen = 0

@event.listens_for(Engine, "after_cursor_execute")
def kill(*_):
    global seen
    seen += 1
    if seen == last:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def kills(code: str, database_url: str, after: Callable[[], object], *, every: int = 1) -> int:
    """Run ``code`` repeatedly until it ends without a kill; return the number of kills.

    Each run is killed ``every`` statements later than the previous one. ``after`` checks the
    database after each kill. ``code`` finds the database URL in ``url``.
    """
    for number in count():
        words = [sys.executable, "-c", PRELUDE + code, database_url, str(1 + number * every)]
        done = subprocess.run(words, check=False, capture_output=True, text=True)
        if done.returncode == 0:
            return number
        assert done.returncode == -signal.SIGKILL, done.stderr
        after()
    raise AssertionError("never")
