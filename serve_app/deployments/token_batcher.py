"""Portions in, batches of tokens out to the engine: `@serve.batch` with its traps fenced off.

Portions wait in Ray's batch queue and share a batch of at most ``batch_tokens_max`` tokens, or as
many as the device scores in the time of a portion: a slow device gains nothing by more, and would
have nothing to go on with while the answers of all are on their way. The forward pass runs in a
thread of its own, so the event loop goes on answering health checks and queue-length probes. Four
faults of ``@serve.batch`` in Ray 2.60 shape this file:

* While a batch runs, it freezes whatever arrives into small batches every ``batch_wait_timeout_s``.
  So the wait is long while the device is busy, and a `Wake` in the queue ends it with the batch.
* An item over the maximum, a size function that raises, or a ``BaseException`` out of the batch
  function ends its loop for good, while the replica still counts as healthy. So oversize is refused
  before the queue, the size function cannot raise, and `check` asks whether the loop lives.
* An exception fails every item of the batch. So each item gets its own scores or its own error.
* A batch that is being collected keeps to the maximum that was set when it began. So the maximum
  stays, and sizes are parts of what a batch may hold at the moment.

A device that fails everything answers faster than any other, so that Ray would send it most of the
work. When all of a batch fails it is checked, and if it fails that too its replica ends.
"""

import asyncio
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ray import serve

from serve_app.deployments.autoscaling import (
    BUSY_RATIO_STAT,
    INFLIGHT_TOKENS_STAT,
    TOKENS_PER_S_STAT,
)
from serve_app.deployments.isolation import score_each
from serve_app.dispatch.portion_size import tokens_in_time
from serve_app.dispatch.scaling import Speedometer
from serve_app.domain.clock import Clock
from serve_app.domain.errors import EngineFailure, ReplicaLost, RerankError
from serve_app.domain.model import Portion, PortionScores
from serve_app.domain.units import Instant, Seconds, Tokens
from serve_app.ports import Engine
from serve_app.telemetry.metrics import (
    BATCH_SECONDS,
    BATCH_TOKENS,
    INFLIGHT_TOKENS,
    QUEUE_WAIT_SECONDS,
    SCORED_TOKENS,
    Metrics,
)

IDLE_WAIT_S = 0.003
"""How long the first portion of a batch waits for company while the device is idle."""

BUSY_WAIT_S = 5.0
"""How long it waits while the device is busy, unless it is woken: about for ever."""

LAST_WORDS_S = 0.1
"""For the answers to what a device failed of to be on their way."""

STUCK_S = 60.0
"""A batch that takes longer than this is no batch, but a device that hangs."""

WHOLE = 1_000_000
"""The size of a full batch, as Ray is told."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A portion in the batch queue."""

    portion: Portion
    since: Instant


class Wake:
    """An item that scores nothing: it fills the batch that it joins, so that it starts at once."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch that has run."""

    started: Instant
    run_s: Seconds
    tokens: Tokens


def batch_tokens(items: Sequence[Waiting | Wake]) -> int:
    """The sum of the portions' tokens."""
    return sum(item.portion.tokens for item in items if isinstance(item, Waiting))


class TokenBatcher:
    """One engine, one batch in flight. Made on the event loop it is used on."""

    def __init__(
        self,
        engine: Engine,
        replica_id: str,
        batch_tokens_max: Tokens,
        metrics: Metrics,
        clock: Clock,
        device_failed: Callable[[EngineFailure], None],
    ) -> None:
        """``device_failed`` ends the replica."""
        self._engine = engine
        self._replica_id = replica_id
        self._metrics = metrics
        self._clock = clock
        self._device_failed = device_failed
        self._device_thread = ThreadPoolExecutor(1, thread_name_prefix="device")
        self._batch_tokens_max = batch_tokens_max
        self._judged_by = 0
        self._failed: EngineFailure | None = None
        self._inflight_tokens = 0
        self._speedometer = Speedometer(clock.instant())
        self._running_since: Instant | None = None
        self._wakes: set[asyncio.Future[object]] = set()
        # Decorated here and not as a method, because Ray keeps one queue per decorated function.
        self._queue = serve.batch(
            max_batch_size=WHOLE,
            batch_wait_timeout_s=IDLE_WAIT_S,
            max_concurrent_batches=1,
            batch_size_fn=self._size,
        )(self._score_batch)

    @property
    def inflight_tokens(self) -> int:
        """Tokens accepted and not yet answered."""
        return self._inflight_tokens

    def autoscaling_stats(self) -> dict[str, float]:
        """By the names that `serve_app.deployments.autoscaling` looks for; one caller."""
        stats = {
            INFLIGHT_TOKENS_STAT: float(self._inflight_tokens),
            BUSY_RATIO_STAT: self._speedometer.busy_ratio(self._clock.instant()),
        }
        if (tokens_per_s := self._speedometer.tokens_per_s) is not None:
            stats[TOKENS_PER_S_STAT] = tokens_per_s
        return stats

    def limit_batches(self, batch_tokens_max: Tokens) -> None:
        """Take another limit, from the next portion on."""
        self._batch_tokens_max = batch_tokens_max

    async def score(self, portion: Portion) -> PortionScores:
        """Logits of every pair in ``portion``, in its order.

        Raises:
            EngineFailure: The portion is over the batch limit, the model failed on it, or one of
                its logits is not a finite number.
        """
        if portion.tokens > self._batch_tokens_max:
            raise EngineFailure(
                f"a portion of {portion.tokens} tokens is over the batch limit of "
                f"{self._batch_tokens_max}"
            )
        self._count_inflight(portion.tokens)
        try:
            outcome: PortionScores | RerankError = await self._queue(
                Waiting(portion, self._clock.instant())
            )
        finally:
            self._count_inflight(-portion.tokens)
        if isinstance(outcome, RerankError):
            raise outcome
        return outcome

    async def check(self) -> None:
        """Prove that the batch loop lives and that the device computes. Does not wait for a batch.

        Raises:
            EngineFailure: The batch loop has ended, so that every later call would hang; or the
                device hangs, or does not answer as it should.
        """
        if not await self._queue._is_batching_task_alive():
            raise EngineFailure("the batch loop has ended")
        if self._running_since is not None:
            if self._clock.instant() - self._running_since > STUCK_S:
                raise EngineFailure(f"a batch has been running for more than {STUCK_S:g} s")
            return
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._device_thread, self._engine.check)

    @property
    def _batch_tokens(self) -> int:
        """What a batch may hold now, but for a single portion that is larger."""
        tokens_per_s = self._speedometer.tokens_per_s
        if tokens_per_s is None:
            return self._batch_tokens_max
        return min(self._batch_tokens_max, tokens_in_time(tokens_per_s))

    def _size(self, items: Sequence[Waiting | Wake]) -> int:
        """The size function of the batch queue, in parts of a `WHOLE`. Never raises.

        A `Wake` fills the batch to its brim; nothing fits behind it.
        """
        limit = self._batch_tokens
        self._judged_by = max(self._judged_by, limit)
        size = math.ceil(WHOLE * batch_tokens(items) / limit)
        if len(items) == 1:
            return WHOLE if isinstance(items[0], Wake) else min(size, WHOLE)
        if any(isinstance(item, Wake) for item in items[:-1]):
            return WHOLE + 1
        return max(size, WHOLE) if isinstance(items[-1], Wake) else size

    async def _score_batch(
        self, items: list[Waiting | Wake]
    ) -> list[PortionScores | RerankError | None]:
        waiting = [item for item in items if isinstance(item, Waiting)]
        outcomes = iter(await self._score_waiting(waiting) if waiting else ())
        return [next(outcomes) if isinstance(item, Waiting) else None for item in items]

    async def _score_waiting(self, waiting: list[Waiting]) -> list[PortionScores | RerankError]:
        if self._failed:
            await asyncio.Event().wait()  # Until the process ends, and its callers ask elsewhere.
        self._running_since = started = self._clock.instant()
        self._queue.set_batch_wait_timeout_s(BUSY_WAIT_S)
        loop = asyncio.get_running_loop()
        portions = [each.portion for each in waiting]
        tokens = Tokens(batch_tokens(waiting))
        try:
            answers = await loop.run_in_executor(self._device_thread, self._run, portions)
            batch = Batch(started, Seconds(self._clock.instant() - started), tokens)
            self._count(portions, answers, batch)
        finally:
            self._running_since = None
            self._queue.set_batch_wait_timeout_s(IDLE_WAIT_S)
            self._wake_collector(tokens)
        if self._failed:
            loop.call_later(LAST_WORDS_S, self._device_failed, self._failed)
        return [
            self._outcome(each, answer, batch)
            for each, answer in zip(waiting, answers, strict=True)
        ]

    def _count(
        self,
        portions: Sequence[Portion],
        answers: Sequence[list[float] | RerankError],
        batch: Batch,
    ) -> None:
        """A portion that failed was not scored, however fast."""
        pairs = zip(portions, answers, strict=True)
        scored = sum(each.tokens for each, answer in pairs if not isinstance(answer, RerankError))
        self._speedometer.ran(Tokens(scored), batch.run_s)
        self._metrics.record(BATCH_SECONDS, batch.run_s)
        self._metrics.record(BATCH_TOKENS, batch.tokens)
        self._metrics.record(SCORED_TOKENS, scored)

    def _wake_collector(self, done_tokens: Tokens) -> None:
        """Start what has been collected meanwhile, unless a full batch is waiting already: with
        no less waiting than any limit that it was judged by since the last wake, one must be.

        Also when nothing seems to wait: a portion whose caller has gone may still sit there, and
        what joins it would wait as long as it may.
        """
        if self._inflight_tokens - done_tokens < max(self._judged_by, self._batch_tokens):
            self._judged_by = 0
            wake = asyncio.ensure_future(self._queue(Wake()))
            self._wakes.add(wake)
            wake.add_done_callback(self._forget_wake)

    def _forget_wake(self, wake: asyncio.Future[object]) -> None:
        self._wakes.discard(wake)
        if not wake.cancelled():
            wake.exception()  # It came as a limit changed; the batch it was to wake has started.

    def _run(self, portions: Sequence[Portion]) -> Sequence[list[float] | RerankError]:
        """On the device's thread. When nothing of a batch could be scored, the device is checked.

        What it held is then lost to it and may be tried elsewhere, but for a portion that was there
        alone: that one may be what the device failed of, and would take the next one along.
        """
        answers = score_each(self._engine, portions)
        if all(isinstance(answer, EngineFailure) for answer in answers):
            try:
                self._engine.check()
            except EngineFailure as failure:
                self._failed = failure
                if len(portions) > 1:
                    return [ReplicaLost(f"its device fails: {failure}") for _ in portions]
        return answers

    def _outcome(
        self, waiting: Waiting, answer: list[float] | RerankError, batch: Batch
    ) -> PortionScores | RerankError:
        if isinstance(answer, RerankError):
            return answer
        queue_wait_s = Seconds(batch.started - waiting.since)
        self._metrics.record(QUEUE_WAIT_SECONDS, queue_wait_s)
        return PortionScores(
            tuple(answer), self._replica_id, queue_wait_s, batch.run_s, batch.tokens
        )

    def _count_inflight(self, tokens: int) -> None:
        self._inflight_tokens += tokens
        self._metrics.record(INFLIGHT_TOKENS, self._inflight_tokens)
