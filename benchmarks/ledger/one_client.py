"""How much longer does one client wait because its request is metered?

Part of `benchmarks.ledger.throughput`.

Requests to the gateway's pipeline with a ledger, requests to the same pipeline without one, and
bare durable commits take turns. A wait of `SCORING_S` replaces the model, so that its noise does
not hide the ledger's time.
"""

import asyncio
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count

from sqlalchemy import text

from benchmarks.ledger.unmetered import UnmeteredLedger
from loadtests.traffic import Traffic
from serve_app.admission.door import Admission
from serve_app.admission.gate import SharedGate
from serve_app.domain.clock import SystemClock
from serve_app.domain.job import Job, pairs_of
from serve_app.domain.model import Caller, JobScores, Truncation
from serve_app.domain.tokenized import TokenizedJob
from serve_app.domain.units import Instant, ModelId, RequestId, Seconds
from serve_app.engine.loading import load_tokenizer
from serve_app.engine.tokenizer_threads import ThreadedTokenizer
from serve_app.ledger.db.engines import open_writer, opened
from serve_app.ledger.money.pricing import PriceList
from serve_app.ledger.sql_ledger import SqlLedger
from serve_app.pipeline import Pipeline
from serve_app.ports import Ledger, PortionReport
from serve_app.served_model import ServedModel, ServedRevision
from serve_app.settings.gateway import Settings
from serve_app.settings.live import LiveSettings
from serve_app.telemetry.metrics import Metric, Metrics

CLOCK = SystemClock()
MODEL = ModelId("embedded")
TIMEOUT_S = Seconds(30)
WAYS = ("metered", "unmetered")
SCORING_S = 0.02
"""Approximate time of a GPU, including the round trip; a CPU takes longer."""


class _NoSink:
    def record(self, metric: Metric, value: float, labels: dict[str, str]) -> None:
        """Discard the value."""


class _EvenModel:
    """A model that takes `SCORING_S` for any input, and gives all documents the same score."""

    async def score(
        self,
        caller: Caller,  # noqa: ARG002 - the port's
        job: Job,
        tokenized: TokenizedJob,  # noqa: ARG002 - the port's
        report: PortionReport,  # noqa: ARG002 - the port's
    ) -> JobScores:
        # Sleep in a thread: the event loop's timers have a resolution of milliseconds.
        await asyncio.to_thread(time.sleep, SCORING_S)
        return JobScores((0.0,) * len(job.pairs), Seconds(0), Seconds(0))


@contextmanager
def pipelines(url: str) -> Iterator[dict[str, Pipeline]]:
    """Yield a metered and an unmetered pipeline with the same tokenizer."""
    ledger = SqlLedger(url, CLOCK, TIMEOUT_S)
    unmetered = UnmeteredLedger(url, CLOCK, TIMEOUT_S)
    ledger.start()
    settings = Settings()
    metrics = Metrics(_NoSink(), CLOCK)
    (model,) = LiveSettings().models

    def around(books: Ledger) -> Pipeline:
        threaded = ThreadedTokenizer(tokenizer, tokenizer, threads, threads)
        gate = SharedGate(settings.gate_tokens_max)
        admission = Admission(gate, tokenizer.pair_tokens_max, metrics, CLOCK)
        revision = ServedRevision(model.revision, admission, threaded, _EvenModel())
        return Pipeline(
            ledger=books,
            pricing=PriceList({MODEL: model.tariff}),
            models={MODEL: ServedModel(revision)},
            metrics=metrics,
            clock=CLOCK,
        )

    try:
        with ThreadPoolExecutor(settings.tokenizer_threads) as threads:
            tokenizer = load_tokenizer(
                model.checkpoint.source, model.checkpoint.revision, model.checkpoint.pair_tokens_max
            )
            yield {"metered": around(ledger), "unmetered": around(unmetered)}
    finally:
        ledger.close()
        unmetered.close()


@dataclass(frozen=True, slots=True)
class Added:
    """The time that metering adds to one client's request, in milliseconds: medians of one run."""

    documents: int
    unmetered_ms: float
    metered_ms: float
    bare_commit_ms: float
    added_ms: float
    added_in_bare_commits: float


def added(url: str, caller: Caller, documents: int, requests: int) -> Added:
    """Measure metered and unmetered requests, and bare commits, in turns."""
    took_ms: dict[str, list[float]] = {way: [] for way in (*WAYS, "bare")}

    async def run(both: Mapping[str, Pipeline], commit: Callable[[], None]) -> None:
        for number in range(requests):
            job = _job(number, documents)
            # Alternate the order: the second pipeline finds the words in the tokenizer's cache.
            for which in WAYS if number % 2 else reversed(WAYS):
                with timed(took_ms[which]):
                    await both[which].rerank(caller, replace(job, deadline=_soon()))
            with timed(took_ms["bare"]):
                commit()

    with pipelines(url) as both, bare_commits(url) as commit:
        asyncio.run(run(both, commit))
    times = {which: statistics.median(values) for which, values in took_ms.items()}
    added_ms = longer_ms(took_ms["metered"], took_ms["unmetered"])
    return Added(
        documents,
        round(times["unmetered"], 2),
        round(times["metered"], 2),
        round(times["bare"], 3),
        round(added_ms, 2),
        round(added_ms / times["bare"], 2),
    )


@contextmanager
def timed(times_ms: list[float]) -> Iterator[None]:
    """Append the duration of the block."""
    started = time.perf_counter()
    yield
    times_ms.append(1_000 * (time.perf_counter() - started))


def longer_ms(metered_ms: Sequence[float], unmetered_ms: Sequence[float]) -> float:
    """Return how much longer metered requests take, from pairs of requests in alternating order."""
    differences = [metered - other for metered, other in zip(metered_ms, unmetered_ms, strict=True)]
    # Take the median of each order separately: all differences together have two peaks, and their
    # median would lie in between.
    return statistics.mean(statistics.median(differences[first::2]) for first in (0, 1))


@contextmanager
def bare_commits(url: str) -> Iterator[Callable[[], None]]:
    """Yield a function that commits one small durable INSERT on an open connection."""
    with opened(open_writer(url, TIMEOUT_S)) as engine:
        with engine.begin() as connection:
            connection.execute(text("DROP TABLE IF EXISTS bare"))
            connection.execute(text("CREATE TABLE bare (id INTEGER PRIMARY KEY)"))
        ids = count()

        def commit() -> None:
            with engine.begin() as connection:
                connection.execute(text("INSERT INTO bare VALUES (:id)"), {"id": next(ids)})

        yield commit


def _job(number: int, documents: int) -> Job:
    request = Traffic(seed=number).request(documents)
    return Job(
        RequestId(f"rr_one_{documents}_{number}"),
        MODEL,
        pairs_of(request.query, request.documents),
        None,
        Truncation.ONLY_DOCUMENT,
        TIMEOUT_S,
        _soon(),
    )


def _soon() -> Instant:
    return Instant(CLOCK.instant() + TIMEOUT_S)
