"""Tokenize large jobs in another process, so that they do not take the GIL from the event loop.

In a thread, a job of 10,000 documents would more than double the time of all other requests.
"""

import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection, Pipe
from threading import Lock

from serve_app.domain.errors import EngineFailure, RerankError
from serve_app.domain.job import Job, TextPair
from serve_app.domain.tokenized import TokenizedJob
from serve_app.engine.child_process import ModuleCommand
from serve_app.ports import Tokenizer

ATTEMPTS_MAX = 2
"""A job whose process ends is tried in a new one, in case another program ended it."""

NICENESS = 4
"""Where cores are scarce, the event loop of the other process goes first."""


class TokenizerProcess:
    """A tokenizer in a process of its own, which starts with the first job.

    Thread-safe; one job at a time. The process ends when this one does, or calls `close`.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._lock = Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    def tokenize(self, job: Job) -> TokenizedJob:
        """See `serve_app.ports.Tokenizer`. Blocks.

        Raises: EngineFailure, if the process ended twice or an unexpected error occurred in it.
        """
        with self._lock:
            for _ in range(ATTEMPTS_MAX):
                try:
                    answer = self._ask(job)
                except (EOFError, OSError):
                    self._end()
                else:
                    if isinstance(answer, RerankError):
                        raise answer
                    return answer
        raise EngineFailure("the tokenizer's process has ended")

    def close(self) -> None:
        with self._lock:
            self._end()

    def _ask(self, job: Job) -> TokenizedJob | RerankError:
        connection = self._connection or self._start()
        # Pairs would take four times as long as two columns.
        connection.send((replace(job, pairs=()), *zip(*job.pairs, strict=True)))
        answer: TokenizedJob | RerankError = connection.recv()
        return answer

    def _start(self) -> Connection:
        self._connection, theirs = Pipe()
        with theirs:
            command = ModuleCommand.of(__name__, str(theirs.fileno()))
            self._child = subprocess.Popen(  # noqa: S603 - our own module
                command.arguments, env=command.environment, pass_fds=[theirs.fileno()]
            )
        self._connection.send(self._tokenizer)
        return self._connection

    def _end(self) -> None:
        if self._connection is not None:
            self._connection.close()
        if self._child is not None:
            self._child.kill()
            self._child.wait()
        self._connection = self._child = None


def main(connection: Connection) -> None:
    """Answer jobs until the other end of ``connection`` is closed."""
    os.nice(NICENESS)
    with suppress(EOFError):
        tokenizer: Tokenizer = connection.recv()
        while True:
            job, queries, documents = connection.recv()
            pairs = tuple(map(TextPair, queries, documents))
            connection.send(_answer(tokenizer, replace(job, pairs=pairs)))


def _answer(tokenizer: Tokenizer, job: Job) -> TokenizedJob | RerankError:
    try:
        return tokenizer.tokenize(job)
    except RerankError as error:
        return error
    except Exception as error:  # noqa: BLE001 - its message may quote the job's texts
        return EngineFailure(f"{type(error).__name__} in the tokenizer's process")


if __name__ == "__main__":
    main(Connection(int(sys.argv[1])))
