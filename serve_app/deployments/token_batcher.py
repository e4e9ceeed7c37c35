"""Collect portions into batches of tokens for the engine.

Batches run on threads of their own, so the event loop continues to answer health checks. An engine
that accepts two batches prepares one while it computes the other; see `docs/decisions/0013`. Four
faults of ``@serve.batch`` in Ray 2.60 shape this file:

* While a batch runs, Ray splits new items into small batches every ``batch_wait_timeout_s``. So the
  wait is long while the device is busy. A `FlushMarker` ends it when the batch ends.
* An item over the maximum, a size function that raises, or a ``BaseException`` out of the batch
  function ends the batch loop for good, while the replica still counts as healthy. So oversized
  portions are rejected before the queue, the size function cannot raise, and `check` verifies that
  the loop is alive.
* An exception fails every item of the batch. So each item gets its own scores or error.
* A change of the maximum does not apply to the batch that is being collected. So the maximum is
  constant, and the size of an item is its share of the current capacity.

A device that fails every batch answers faster than any other, so the gateways would send it most of
the work. So it is checked when all portions of a batch fail.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from ray import serve

from serve_app.batching.batch_size import (
    FULL,
    IDLE_WAIT_S,
    Batch,
    BatchSize,
    FlushMarker,
    Running,
    Waiting,
    batch_tokens,
)
from serve_app.batching.isolation import score_each
from serve_app.batching.report import BatchReport
from serve_app.batching.throughput import ThroughputMeter
from serve_app.deployments.autoscaling import (
    BUSY_RATIO_STAT,
    INFLIGHT_TOKENS_STAT,
    TOKENS_PER_S_STAT,
)
from serve_app.domain.clock import Clock
from serve_app.domain.errors import EngineFailure, ReplicaLost, RerankError
from serve_app.domain.model import Portion, PortionScores
from serve_app.domain.units import Instant, Seconds, Tokens
from serve_app.ports import Engine

BUSY_WAIT_S = 5.0
"""Practically forever: a `FlushMarker` ends the wait."""

LAST_WORDS_S = 0.1
"""Time for error responses to leave the process before it exits."""

AHEAD_S = 0.005
"""Time before the end of a batch at which the next one is prepared; see `docs/decisions/0013`."""

STUCK_S = 60.0
"""A batch that takes longer shows that the device hangs."""


class TokenBatcher:
    """One engine and its batches. Create it on the event loop that uses it."""

    def __init__(
        self,
        engine: Engine,
        replica_id: str,
        batch_tokens_max: Tokens,
        report: BatchReport,
        clock: Clock,
        device_failed: Callable[[EngineFailure], None],
    ) -> None:
        """``device_failed`` ends the replica."""
        self._engine = engine
        self._replica_id = replica_id
        self._report = report
        self._clock = clock
        self._device_failed = device_failed
        self._device_threads = ThreadPoolExecutor(
            engine.batches_at_once, thread_name_prefix="device"
        )
        self._meter = ThroughputMeter(clock.instant())
        self._batch_size = BatchSize(batch_tokens_max, self._meter)
        self._inflight_tokens = 0
        self._waiting: set[Waiting] = set()
        self._running: list[Running] = []
        self._free_at = clock.instant()
        self._failed: EngineFailure | None = None
        self._markers: set[asyncio.Future[object]] = set()
        # Not a decorated method, because Ray keeps one queue per decorated function.
        self._queue = serve.batch(
            max_batch_size=FULL,
            batch_wait_timeout_s=IDLE_WAIT_S,
            max_concurrent_batches=engine.batches_at_once,
            batch_size_fn=self._batch_size.of,
        )(self._score_batch)

    def autoscaling_stats(self) -> dict[str, float]:
        """Return the metrics for autoscaling, for one caller only: a call resets the busy ratio."""
        stats = {
            INFLIGHT_TOKENS_STAT: float(self._inflight_tokens),
            BUSY_RATIO_STAT: self._meter.busy_ratio(self._clock.instant()),
        }
        if (tokens_per_s := self._meter.tokens_per_s) is not None:
            stats[TOKENS_PER_S_STAT] = tokens_per_s
        return stats

    def limit_batches(self, batch_tokens_max: Tokens) -> None:
        self._batch_size.tokens_max = batch_tokens_max

    async def score(self, portion: Portion, traceparent: str = "") -> PortionScores:
        """Return the scores of ``portion``.

        Raises: ReplicaLost if the device failed; EngineFailure if the portion is over the batch
            limit, the model failed on it, or a logit is not a finite number.
        """
        if portion.tokens > self._batch_size.tokens_max:
            raise EngineFailure(
                f"a portion of {portion.tokens} tokens exceeds the batch limit of "
                f"{self._batch_size.tokens_max}"
            )
        waiting = Waiting(portion, self._clock.instant(), traceparent)
        self._waiting.add(waiting)
        self._count_inflight(portion.tokens)
        try:
            outcome: PortionScores | RerankError = await self._queue(waiting)
        finally:
            self._count_inflight(-portion.tokens)
            if waiting in self._waiting:  # Cancelled; the others may not fill their batch.
                self._waiting.discard(waiting)
                if not self._running:
                    self._flush_batch()
        if isinstance(outcome, RerankError):
            raise outcome
        return outcome

    async def check(self) -> None:
        """Verify that the batch loop is alive and the device computes. Does not wait for a batch.

        Raises: EngineFailure.
        """
        if not await self._queue._is_batching_task_alive():
            raise EngineFailure("the batch loop has ended")
        if self._running:
            since = max(self._running[0].since, self._free_at)
            if self._clock.instant() - since > STUCK_S:
                raise EngineFailure(f"a batch has been running for more than {STUCK_S:g} s")
            return
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._device_threads, self._engine.check)

    async def _score_batch(
        self, items: list[Waiting | FlushMarker]
    ) -> list[PortionScores | RerankError | None]:
        waiting = [item for item in items if isinstance(item, Waiting)]
        outcomes = iter(await self._score_waiting(waiting) if waiting else ())
        return [next(outcomes) if isinstance(item, Waiting) else None for item in items]

    async def _score_waiting(self, waiting: list[Waiting]) -> list[PortionScores | RerankError]:
        if self._failed:
            await asyncio.Event().wait()  # The process ends soon; callers then retry elsewhere.
        portions = [each.portion for each in waiting]
        running = Running(self._clock.instant(), batch_tokens(waiting))
        self._begin(running, waiting)
        loop = asyncio.get_running_loop()
        try:
            answers, ended = await loop.run_in_executor(
                self._device_threads, self._run, running, portions
            )
            started = min(ended, max(running.since, self._free_at))
            batch = Batch(started, Seconds(ended - started), running.tokens)
            # Failed portions do not count as scored.
            self._meter.ran(self._report.ended(batch, waiting, answers), batch.run_s)
            if running is self._running[0]:
                self._free_at = ended
        finally:
            self._end(running)
        if self._failed:
            loop.call_later(LAST_WORDS_S, self._device_failed, self._failed)
        return [
            self._outcome(each, answer, batch)
            for each, answer in zip(waiting, answers, strict=True)
        ]

    def _begin(self, running: Running, waiting: Sequence[Waiting]) -> None:
        self._waiting.difference_update(waiting)
        self._running.append(running)
        self._queue.set_batch_wait_timeout_s(BUSY_WAIT_S)
        if len(self._running) == 1:
            self._look_ahead()

    def _end(self, running: Running) -> None:
        self._running.remove(running)
        if self._running:
            self._look_ahead()
        else:
            self._queue.set_batch_wait_timeout_s(IDLE_WAIT_S)
            self._flush_batch()

    def _look_ahead(self) -> None:
        tokens_per_s = self._meter.tokens_per_s
        if self._engine.batches_at_once == 1 or tokens_per_s is None:
            return
        computed = self._running[0]
        run_s = computed.tokens / tokens_per_s
        if run_s > 2 * AHEAD_S:
            loop = asyncio.get_running_loop()
            loop.call_later(run_s - AHEAD_S, self._start_next, computed)

    def _start_next(self, computed: Running) -> None:
        if self._waiting and self._running == [computed]:
            self._flush_batch()

    def _flush_batch(self) -> None:
        """Start the batch that is being collected, unless a full batch is queued already.

        This also applies when nothing seems to be queued: a cancelled portion may still be in the
        queue, and one that joins it would wait for `BUSY_WAIT_S`.
        """
        if self._batch_size.may_be_short(self._waiting):
            marker = asyncio.ensure_future(self._queue(FlushMarker()))
            self._markers.add(marker)
            marker.add_done_callback(self._forget_marker)

    def _forget_marker(self, marker: asyncio.Future[object]) -> None:
        self._markers.discard(marker)
        if not marker.cancelled():
            marker.exception()  # A limit changed meanwhile; the batch has started in any case.

    def _run(
        self, running: Running, portions: Sequence[Portion]
    ) -> tuple[Sequence[list[float] | RerankError], Instant]:
        """Return the outcomes and the end time. Runs on a device thread.

        If all portions fail and so does the device's check, they are retried elsewhere as
        `ReplicaLost`. A single portion in the first failing batch is not, because it may have
        crashed the device.
        """
        answers: Sequence[list[float] | RerankError] = score_each(self._engine, portions)
        if all(isinstance(answer, EngineFailure) for answer in answers):
            try:
                self._engine.check()
            except EngineFailure as failure:
                first = self._failed is None and self._running[0] is running
                self._failed = failure
                if not first or len(portions) > 1:
                    answers = [ReplicaLost(f"the device failed: {failure}") for _ in portions]
        return answers, self._clock.instant()

    def _outcome(
        self, waiting: Waiting, answer: list[float] | RerankError, batch: Batch
    ) -> PortionScores | RerankError:
        if isinstance(answer, RerankError):
            return answer
        queue_wait_s = Seconds(batch.started - waiting.since)
        tokens_per_s = self._meter.tokens_per_s or 0.0
        return PortionScores(
            tuple(answer), self._replica_id, queue_wait_s, batch.run_s, tokens_per_s
        )

    def _count_inflight(self, tokens: int) -> None:
        self._inflight_tokens += tokens
        self._report.holds(self._inflight_tokens)
