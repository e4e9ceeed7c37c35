"""The Scorer deployment: one replica is one model on one device.

Batching is in `serve_app.deployments.token_batcher`.
"""

import logging
import os
from typing import TypedDict

import psutil
from ray import serve

from serve_app.batching.batch_size import batch_limit
from serve_app.batching.report import BatchReport
from serve_app.deployments.logs import join_serve_log
from serve_app.deployments.metrics import ray_metrics_sink
from serve_app.deployments.token_batcher import TokenBatcher
from serve_app.deployments.traces import connect_if_installed
from serve_app.domain.clock import SystemClock
from serve_app.domain.errors import EngineFailure
from serve_app.domain.model import Portion, PortionScores
from serve_app.domain.model_card import ReplicaInfo
from serve_app.domain.units import Tokens
from serve_app.engine.export_cache import EXPORTS
from serve_app.engine.limits import EngineLimits
from serve_app.engine.loading import load_engine
from serve_app.engine.sources import ModelLoadError
from serve_app.scaling.backlogs import Backlog, HeardBacklogs
from serve_app.settings.scorer import ScorerSettings
from serve_app.telemetry.logs import get_logger

logger = get_logger(__name__)


class UserConfig(TypedDict, total=False):
    """Settings that `serve deploy` can change on a running replica, under ``user_config``."""

    batch_tokens_max: int


@serve.deployment
class Scorer:
    """One replica: one model on one device, warm before Serve counts it as RUNNING."""

    def __init__(self, settings: ScorerSettings) -> None:
        join_serve_log()
        # Whether a portion is traced is up to its gateway.
        self._collector = connect_if_installed("rerank-scorer")
        clock = SystemClock()
        entered = clock.instant()
        # Ray may have started the process earlier than this replica.
        process_s = clock.moment() / 1_000 - psutil.Process().create_time()
        self._replica_id = serve.get_replica_context().replica_id.unique_id
        checkpoint = settings.checkpoint
        limits = EngineLimits(
            batch_tokens_max=settings.batch_tokens_max,
            forward_tokens_max=settings.forward_tokens_max,
            pair_tokens_max=checkpoint.pair_tokens_max,
            threads=settings.scorer_threads,
        )
        try:
            self._engine = load_engine(
                checkpoint.source,
                checkpoint.revision,
                checkpoint.precision,
                limits,
                settings.var_dir / EXPORTS,
            )
            loaded = clock.instant()
            self._engine.warm_up()
        except (ModelLoadError, EngineFailure) as error:
            # Ray logs the error, too, at the end of a long traceback.
            logger.critical("scorer_cannot_start", extra={"reason": str(error)})
            raise
        spent_s = {
            "process_s": process_s,
            "load_s": loaded - entered,
            "warm_up_s": clock.instant() - loaded,
        }
        logger.info("scorer_warm", extra={name: round(value, 3) for name, value in spent_s.items()})
        pair_tokens_max = self._engine.pair_tokens_max
        self._portion_tokens_max = max(settings.portion_tokens_max, pair_tokens_max)
        self._warm_tokens_max = max(limits.batch_tokens_max, pair_tokens_max)
        self._batcher = TokenBatcher(
            self._engine,
            self._replica_id,
            Tokens(self._warm_tokens_max),
            BatchReport(ray_metrics_sink(), self._collector),
            clock,
            _end_process,
        )
        self._clock = clock
        self._backlogs = HeardBacklogs()

    def reconfigure(self, user_config: UserConfig) -> None:
        """Apply another batch limit.

        An invalid limit is clamped and logged; see `Gateway.reconfigure`.
        """
        wanted = user_config.get("batch_tokens_max", self._warm_tokens_max)
        limit = batch_limit(wanted, self._portion_tokens_max, self._warm_tokens_max)
        if limit != wanted:
            logger.error(
                "user_config_refused", extra={"batch_tokens_max": repr(wanted), "taken": limit}
            )
        self._batcher.limit_batches(limit)

    async def score(
        self, portion: Portion, backlog: Backlog, traceparent: str = ""
    ) -> PortionScores:
        """See `TokenBatcher.score`."""
        self._backlogs.hear(backlog, self._clock.instant())
        return await self._batcher.score(portion, traceparent)

    async def describe(self) -> ReplicaInfo:
        """Describe this replica once its device has answered or is busy. Raises: EngineFailure."""
        await self._batcher.check()
        return ReplicaInfo(
            self._replica_id,
            self._engine.device,
            self._engine.precision,
            self._engine.description,
            self._engine.activation,
        )

    def record_autoscaling_stats(self) -> dict[str, float]:
        return self._batcher.autoscaling_stats() | self._backlogs.stats(self._clock.instant())

    async def check_health(self) -> None:
        """Raises: EngineFailure; Serve then replaces the replica."""
        await self._batcher.check()

    def __del__(self) -> None:
        """Export the last spans, when Serve stops the replica."""
        self._collector.close()


def _end_process(failure: EngineFailure) -> None:
    """Queued portions then go to other replicas, and Serve starts a new one."""
    try:
        logger.critical("device_failed", extra={"reason": str(failure)})
        logging.shutdown()
    finally:
        os._exit(1)  # A failed CUDA context allows no orderly exit.
