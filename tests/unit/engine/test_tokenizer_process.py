"""A tokenizer in a process of its own answers like the tokenizer itself, whatever happens to it."""

import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import psutil
import pytest

from serve_app.domain.errors import EngineFailure, InvalidRequest
from serve_app.domain.job import Job
from serve_app.domain.model import Overflow
from serve_app.domain.tokenized import TokenizedJob
from serve_app.domain.units import Tokens
from serve_app.engine.loading import load_tokenizer
from serve_app.engine.tokenizer import PairTokenizer
from serve_app.engine.tokenizer_process import TokenizerProcess
from serve_app.ports import Usage
from tests.support.fakes import a_job

pytestmark = pytest.mark.slow

DOCUMENTS = ("one document", "größe 空 \ud83d", "", "long " * 1_000)


class BadTokenizer:
    """Fails on every job in the way that its query names."""

    pair_tokens_max = Tokens(512)

    def check_queries(self, job: Job) -> Usage:
        raise NotImplementedError

    def tokenize(self, job: Job) -> TokenizedJob:
        if job.pairs[0].query == "exit":
            sys.exit(1)
        raise ValueError(job.pairs[0].document)


@pytest.fixture(scope="module")
def tokenizer() -> PairTokenizer:
    return load_tokenizer("embedded")


@pytest.fixture
def process(tokenizer: PairTokenizer) -> Iterator[TokenizerProcess]:
    process = TokenizerProcess(tokenizer)
    yield process
    process.close()


def child_of_this_process() -> psutil.Process:
    (child,) = (
        each
        for each in psutil.Process().children()
        if "serve_app.engine.tokenizer_process" in each.cmdline()
    )
    return child


@pytest.mark.parametrize("overflow", [Overflow.TRUNCATE, Overflow.CHUNK])
def test_the_answers_are_those_of_the_tokenizer(
    tokenizer: PairTokenizer, process: TokenizerProcess, overflow: Overflow
) -> None:
    job = replace(a_job(documents=DOCUMENTS), overflow=overflow, windows_max=100)

    assert process.tokenize(job) == tokenizer.tokenize(job)


def test_a_refusal_is_raised_with_its_field(process: TokenizerProcess) -> None:
    job = replace(a_job(documents=DOCUMENTS), overflow=Overflow.ERROR)

    with pytest.raises(InvalidRequest, match="has 1,000 tokens"):
        process.tokenize(job)


def test_jobs_of_several_threads_do_not_mix(process: TokenizerProcess) -> None:
    jobs = [a_job(documents=("word " * count,)) for count in range(1, 50)]

    with ThreadPoolExecutor(4) as threads:
        lengths = [each.lengths for each in threads.map(process.tokenize, jobs)]

    first = lengths[0][0]
    assert lengths == [(first + count,) for count in range(49)]


def test_a_process_that_was_killed_is_replaced(process: TokenizerProcess) -> None:
    before = process.tokenize(a_job(documents=DOCUMENTS))
    child = child_of_this_process()
    os.kill(child.pid, signal.SIGKILL)
    child.wait(10)

    assert process.tokenize(a_job(documents=DOCUMENTS)) == before
    assert child_of_this_process().pid != child.pid


def test_a_job_that_ends_its_process_fails_after_two_attempts() -> None:
    process = TokenizerProcess(BadTokenizer())

    with pytest.raises(EngineFailure, match="process has ended"):
        process.tokenize(a_job(query="exit"))

    process.close()


def test_an_unexpected_error_is_named_without_its_message() -> None:
    process = TokenizerProcess(BadTokenizer())

    with pytest.raises(EngineFailure) as failure:
        process.tokenize(a_job(documents=("a secret text",)))

    assert "ValueError" in str(failure.value.args)
    assert "secret" not in repr(failure.value.args)
    process.close()


def test_the_process_ends_with_its_connection(process: TokenizerProcess) -> None:
    process.tokenize(a_job())
    child = child_of_this_process()

    process.close()

    assert not child.is_running()
