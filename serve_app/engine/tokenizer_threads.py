"""Tokenize jobs on threads, so that the event loop stays free."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Protocol, TypeVar

from serve_app.domain.job import Job
from serve_app.domain.model import Overflow
from serve_app.domain.tokenized import TokenizedJob
from serve_app.ports import Tokenizer, Usage

T = TypeVar("T")

QUERY_CHARACTERS_SHORT = 500
"""Queries of up to this length are checked on the event loop, in 0.1 ms, unless the documents are
read, too."""


class LargeJobTokenizer(Protocol):
    """See `serve_app.engine.tokenizer_process`."""

    def tokenize(self, job: Job) -> TokenizedJob:
        """See `serve_app.ports.Tokenizer`."""


@dataclass(frozen=True, slots=True)
class ThreadedTokenizer:
    """`serve_app.ports.JobTokenizer` over tokenizers that block.

    Small jobs never wait for large ones.
    """

    tokenizer: Tokenizer
    for_large_jobs: LargeJobTokenizer
    small_threads: Executor
    large_threads: Executor

    async def check_queries(self, job: Job, *, small: bool) -> Usage:
        short = sum(map(len, job.queries)) <= QUERY_CHARACTERS_SHORT
        if short and job.overflow is not Overflow.CHUNK:
            return self.tokenizer.check_queries(job)
        return await self._on_thread(self.tokenizer.check_queries, job, small=small)

    async def tokenize(self, job: Job, *, small: bool) -> TokenizedJob:
        tokenizer = self.tokenizer if small else self.for_large_jobs
        return await self._on_thread(tokenizer.tokenize, job, small=small)

    async def _on_thread(self, work: Callable[[Job], T], job: Job, *, small: bool) -> T:
        threads = self.small_threads if small else self.large_threads
        return await asyncio.get_running_loop().run_in_executor(threads, work, job)
